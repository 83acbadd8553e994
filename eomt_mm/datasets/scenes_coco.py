"""The ground truth of a synthetic scene in COCO's formats, panoptic and instances."""

import numpy as np

from eomt_mm.evaluation.panoptic_quality import id2rgb, rgb2id

from .scenes import CLASSES, NUM_STUFF

# Segments are numbered through all images of a split, as MMDet wants them; no scene
# has more than this.
MOST_SEGMENTS = 16
# Things first, as in MMDet. Categories of COCO count from 1.
NAMES = CLASSES[NUM_STUFF:] + CLASSES[:NUM_STUFF]
CATEGORIES = [
    dict(id=i, name=name, isthing=int(name in CLASSES[NUM_STUFF:]))
    for i, name in enumerate(NAMES, start=1)
]


def segments(
    index: int, semantic: np.ndarray, instance: np.ndarray
) -> tuple[np.ndarray, list[dict]]:
    """Number the segments of a scene: its things, then its stuff.

    Args:
        index (int): Number of the scene in its split.
        semantic (np.ndarray): Class of each pixel, shape (H, W).
        instance (np.ndarray): Instance of each pixel, 0 for stuff, shape (H, W).

    Returns:
        tuple[np.ndarray, list[dict]]: The panoptic map (H, W, 3) uint8, whose colour
        is the number, and `segments_info`.
    """
    # Instances and, beyond them, classes of stuff: one value per segment.
    value = np.where(instance > 0, instance, semantic + MOST_SEGMENTS)
    ids, infos = np.zeros(value.shape, np.int32), []
    for number, found in enumerate(np.unique(value), start=1):
        mask = value == found
        name = CLASSES[semantic[mask][0]]
        infos.append(
            dict(
                id=index * MOST_SEGMENTS + number,
                category_id=NAMES.index(name) + 1,
                iscrowd=0,
                area=int(mask.sum()),
                bbox=_bbox(mask),
            )
        )
        ids[mask] = infos[-1]['id']
    return id2rgb(ids), infos


def instances(index: int, panoptic: np.ndarray, infos: list[dict]) -> list[dict]:
    """Turn the result of `segments` into annotations of things, with masks."""
    ids = rgb2id(panoptic)
    return [
        dict(info, image_id=index, segmentation=_run_lengths(ids == info['id']))
        for info in infos
        if CATEGORIES[info['category_id'] - 1]['isthing']
    ]


def _bbox(mask: np.ndarray) -> list[int]:
    """Return left, top, width and height of a mask with at least one pixel."""
    ys, xs = np.nonzero(mask)
    left, top = int(xs.min()), int(ys.min())
    return [left, top, int(xs.max()) - left + 1, int(ys.max()) - top + 1]


def _run_lengths(mask: np.ndarray) -> dict:
    """Encode a mask as COCO's uncompressed RLE: runs down the columns, zeros first."""
    flat = np.concatenate(([0], mask.T.ravel().astype(np.int8), [-1]))
    changes = np.flatnonzero(np.diff(flat))
    return dict(size=list(mask.shape), counts=np.diff(changes, prepend=0).tolist())
