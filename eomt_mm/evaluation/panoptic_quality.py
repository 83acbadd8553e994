"""Panoptic quality, and panoptic ids as colours.

PQ is defined in "Panoptic Segmentation" (arXiv 1801.00868, Sec. 4). A predicted and
a true segment of one class match where their IoU is above 0.5; then, for each class,

    PQ = sum of the IoU of the matches / (TP + FP / 2 + FN / 2) = SQ * RQ.

The names are those of the COCO panoptic API that MMDetection uses, which this module
replaces.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

VOID = 0  # id of pixels without a segment
OFFSET = 256**3  # above every id: two of them fit in one integer


@dataclass
class ClassStat:
    """Counts of one class.

    Attributes:
        iou (float): Sum over the matches.
        tp (int): Matches.
        fp (int): Predicted segments without a match.
        fn (int): True segments without a match.
    """

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: ClassStat) -> ClassStat:
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn
        return self

    def quality(self) -> dict[str, float]:
        """Return PQ, SQ and RQ as fractions; zeros if the class does not occur."""
        segments = self.tp + 0.5 * self.fp + 0.5 * self.fn
        return dict(
            pq=self.iou / segments if segments else 0.0,
            sq=self.iou / self.tp if self.tp else 0.0,
            rq=self.tp / segments if segments else 0.0,
        )


class PQStat:
    """Counts of all classes; `stat[category_id]` is a :class:`ClassStat`."""

    def __init__(self) -> None:
        self.per_class: defaultdict[int, ClassStat] = defaultdict(ClassStat)

    def __getitem__(self, category_id: int) -> ClassStat:
        return self.per_class[category_id]

    def __iadd__(self, other: PQStat) -> PQStat:
        for category_id, stat in other.per_class.items():
            self.per_class[category_id] += stat
        return self

    def pq_average(
        self, categories: dict[int, dict], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Average over the classes that occur in the truth or in the prediction.

        Args:
            categories (dict[int, dict]): Categories by id, with the key `isthing`.
            isthing (bool, optional): Average over things or over stuff alone; None
                means both.

        Returns:
            tuple[dict, dict]: `pq`, `sq`, `rq` (fractions; NaN if no class occurs)
            and `n`, the number of classes averaged; and the fractions of each class.
        """
        chosen = [
            category_id
            for category_id, category in categories.items()
            if isthing is None or bool(category['isthing']) == isthing
        ]
        of_class = {category_id: self[category_id].quality() for category_id in chosen}
        # What occurs has a match or misses one.
        occurring = [
            of_class[category_id]
            for category_id in chosen
            if self[category_id] != ClassStat()
        ]
        mean = {
            key: sum(quality[key] for quality in occurring) / len(occurring)
            if occurring
            else float('nan')
            for key in ('pq', 'sq', 'rq')
        }
        return dict(**mean, n=len(occurring)), of_class


def id2rgb(ids: np.ndarray | int) -> np.ndarray | list[int]:
    """Turn ids into colours, red being the lowest byte.

    Args:
        ids (np.ndarray | int): Any shape, from 0 to `OFFSET` - 1.

    Returns:
        np.ndarray | list[int]: Shape (..., 3) uint8; a list for a single id.
    """
    if not isinstance(ids, np.ndarray):
        return [ids % 256, ids // 256 % 256, ids // 256**2 % 256]
    return np.stack([ids // 256**i % 256 for i in range(3)], axis=-1).astype(np.uint8)


def rgb2id(color: np.ndarray | list[int]) -> np.ndarray | int:
    """Turn colours into ids, the inverse of :func:`id2rgb`.

    Args:
        color (np.ndarray | list[int]): Shape (H, W, 3), or three numbers.

    Returns:
        np.ndarray | int: Shape (H, W) int32, or one id.
    """
    if not (isinstance(color, np.ndarray) and color.ndim == 3):
        red, green, blue = (int(value) for value in color)
        return red + 256 * green + 256**2 * blue
    ids = color[..., 2].astype(np.int32)
    for channel in (1, 0):  # in place: photographs are large
        ids *= 256
        ids += color[..., channel]
    return ids
