"""The instances of an MMDet sample, kept consistent by all transforms.

An instance is an entry in each of `gt_masks`, `gt_bboxes`, `gt_bboxes_labels` and
`gt_ignore_flags`. Samples without `gt_masks`, MMSeg's, are left as they are. MMDet's
mask classes need mmcv's operators and are imported where they are used.
"""

from collections.abc import Callable

import numpy as np

KEYS = ('gt_masks', 'gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags')


def label_maps(results: dict) -> list[str]:
    """List the keys of the label maps: MMSeg lists them, MMDet has at most one."""
    own = ['gt_seg_map'] if 'gt_seg_map' in results else []
    return results.get('seg_fields', own)


def keep(results: dict, chosen: np.ndarray) -> None:
    """Keep only some instances.

    Args:
        results (dict): Changed in place.
        chosen (np.ndarray): Shape (N,) bool.
    """
    if not chosen.all():
        for key in KEYS:
            if key in results:
                results[key] = results[key][np.flatnonzero(chosen)]


def drop_crowds(results: dict) -> None:
    """Drop instances that are flagged to be ignored: crowds and broken polygons."""
    if 'gt_ignore_flags' in results:
        keep(results, ~results['gt_ignore_flags'])


def change_masks(results: dict, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Apply a function to all masks and recompute the boxes.

    Polygons become bitmaps. Masks without a pixel are dropped.

    Args:
        results (dict): Changed in place.
        change (Callable): Maps (N, H, W) uint8 to (N, H', W') uint8.
    """
    if 'gt_masks' not in results:
        return
    from mmdet.structures.mask import BitmapMasks

    masks = results['gt_masks'].to_ndarray().astype(np.uint8, copy=False)
    masks = change(masks)
    results['gt_masks'] = BitmapMasks(masks, *masks.shape[1:])
    keep(results, masks.any(axis=(1, 2)))
    if 'gt_bboxes' in results:
        results['gt_bboxes'] = results['gt_masks'].get_bboxes(dst_type='hbox')


def is_labelled(results: dict, ignore_index: int) -> bool:
    """Whether anything is left to learn from: an instance or a labelled pixel."""
    return bool(len(results.get('gt_masks', ()))) or any(
        (results[key] != ignore_index).any() for key in label_maps(results)
    )
