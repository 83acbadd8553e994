"""Example photos: synthetic scenes, drawn when the page starts."""

import numpy as np

from eomt_mm.datasets.scenes import draw_scene

from .saving import png

SEEDS = (3, 8, 11, 20)
SIZE = (480, 640)


class Examples:
    """Scenes as PNG files, each drawn when it is first asked for."""

    def __init__(self) -> None:
        self._files: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(SEEDS)

    def __getitem__(self, number: int) -> bytes:
        if number not in self._files:
            rng = np.random.default_rng(SEEDS[number])
            self._files[number] = png(draw_scene(rng, SIZE)[0])
        return self._files[number]
