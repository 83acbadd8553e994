"""Instance masks, plain or run-length encoded as in COCO's files."""

import numpy as np
from pycocotools import mask as coco_masks
from torch import Tensor


def encode_mask(mask: Tensor) -> dict:
    """Run-length encode a mask.

    Args:
        mask (Tensor): Shape (H, W) bool.

    Returns:
        dict: `size` and `counts`, as pycocotools has them.
    """
    return coco_masks.encode(np.asfortranarray(mask.cpu().numpy().view(np.uint8)))


def plain_masks(masks: Tensor | list[dict], shape: tuple[int, int]) -> np.ndarray:
    """Masks as an array.

    Args:
        masks (Tensor | list[dict]): Shape (N, H, W) bool, or N encoded masks.
        shape (tuple[int, int]): Height and width, for the case of no mask.

    Returns:
        np.ndarray: Shape (N, H, W) bool.
    """
    if isinstance(masks, Tensor):
        return masks.cpu().numpy()
    plain = np.zeros((len(masks), *shape), bool)
    for place, runs in zip(plain, masks, strict=True):
        place[:] = coco_masks.decode(runs)
    return plain
