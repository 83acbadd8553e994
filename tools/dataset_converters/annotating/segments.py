"""Panoptic maps and annotation files in COCO's format."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths
from scipy.ndimage import find_objects

from eomt_mm.errors import UserError
from eomt_mm.evaluation import id2rgb

# Segments are numbered through all images of a split: MMDetection looks them up by
# their number alone, and takes half an hour to load if every image has a segment 1.
# Times 20,210 training images, as many as ADE20K has, this still fits into the three
# bytes of a colour.
MOST_SEGMENTS = 512


def describe(
    ids: np.ndarray, labels: Sequence[int], crowds: Sequence[bool], index: int
) -> list[dict]:
    """Describe the segments of an image.

    Args:
        ids (np.ndarray): Segment of each pixel, shape (H, W), from 1; 0 is void.
        labels (Sequence[int]): Category of each segment.
        crowds (Sequence[bool]): Whether it is a crowd.
        index (int): Number of the image in its split.

    Returns:
        list[dict]: COCO's `id`, `category_id`, `area`, `bbox` and `iscrowd`.

    Raises:
        UserError: If there are too many segments.
    """
    if len(labels) >= MOST_SEGMENTS:
        raise UserError(f'{len(labels)} segments; expected fewer than {MOST_SEGMENTS}')
    areas = np.bincount(ids.ravel(), minlength=len(labels) + 1).tolist()
    segments = []
    for i, (label, crowd, (rows, columns)) in enumerate(
        zip(labels, crowds, find_objects(ids), strict=True), start=1
    ):
        left, top = columns.start, rows.start
        segments.append(
            dict(
                id=index * MOST_SEGMENTS + i,
                category_id=label,
                area=areas[i],
                bbox=[left, top, columns.stop - left, rows.stop - top],
                iscrowd=int(crowd),
            )
        )
    return segments


def save_map(ids: np.ndarray, index: int, path: Path) -> None:
    """Write the panoptic PNG of image `index`, with the numbers of `describe`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = index * MOST_SEGMENTS
    Image.fromarray(id2rgb(np.where(ids, ids + first, 0))).save(path)


def with_mask(segment: dict, ids: np.ndarray, **changes: object) -> dict:
    """Return a segment of `describe` as an instance, with its mask as run lengths."""
    number = segment['id'] % MOST_SEGMENTS
    mask = run_lengths.encode(np.asfortranarray(ids == number, dtype=np.uint8))
    mask['counts'] = mask['counts'].decode('ascii')
    return {**segment, **changes, 'segmentation': mask}


def write(
    path: Path, images: list[dict], annotations: list[dict], categories: list[dict]
) -> None:
    """Write an annotation file."""
    content = dict(images=images, annotations=annotations, categories=categories)
    path.write_text(json.dumps(content) + '\n')
