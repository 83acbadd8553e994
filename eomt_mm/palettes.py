"""Colours for classes without a palette."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

Colour = tuple[int, int, int]


def palette_of(metainfo: Mapping, published: Mapping) -> list[Colour]:
    """Choose one colour for each class.

    Args:
        metainfo: `classes` and perhaps `palette`, as a dataset has them.
        published: `metainfo` of the dataset's class, whose palette `metainfo` may
            have inherited although it belongs to other classes.

    Returns:
        list[Colour]: RGB. The palette, if it has one colour a class; the published
        colours, if all classes are published; else distinct ones.
    """
    classes = list(metainfo.get('classes') or ())
    palette = metainfo.get('palette')
    if is_palette(palette) and len(palette) == len(classes):
        return [tuple(colour) for colour in palette]
    names, colours = published.get('classes') or (), published.get('palette') or ()
    if len(names) == len(colours):
        known = dict(zip(names, map(tuple, colours), strict=True))
        if known.keys() >= set(classes):
            return [known[name] for name in classes]
    return distinct_colours(len(classes))


def is_palette(palette: object) -> bool:
    """Whether this is a list of RGB colours, whole numbers from 0 to 255."""
    return isinstance(palette, Sequence) and all(
        isinstance(colour, Sequence)
        and len(colour) == 3
        and {int}.issuperset(map(type, colour))
        and 0 <= min(colour) <= max(colour) <= 255
        for colour in palette
    )


@cache
def distinct_colours(count: int) -> list[Colour]:
    """Return colours far from each other, neither nearly black nor nearly white.

    Each is the farthest in CIELAB from its predecessors, of 8 x 8 x 8 candidates, so
    that the first colours do not depend on their number. Behind the last candidate they
    repeat.

    Args:
        count: Number of colours.
    """
    import cv2  # comes with mmcv, without which the tools of the core run

    steps = np.linspace(0, 255, 8).round().astype(np.uint8)
    rgb = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    lab = cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    legible = (lab[:, 0] > 35) & (lab[:, 0] < 88)
    rgb, lab = rgb[legible], lab[legible]
    chosen = [int(np.linalg.norm(lab[:, 1:], axis=1).argmax())]  # the most colourful
    distance = np.full(len(lab), np.inf)
    while len(chosen) < min(count, len(lab)):
        distance = np.minimum(distance, np.linalg.norm(lab - lab[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return [tuple(rgb[chosen[i % len(chosen)]].tolist()) for i in range(count)]
