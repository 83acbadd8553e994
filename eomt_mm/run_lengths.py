"""Instance masks, plain or run-length encoded as in COCO's files."""

import numpy as np
import torch
from pycocotools import mask as coco_masks
from torch import Tensor


class RunLengths(dict):
    """One encoded mask, `size` and `counts`, that can be indexed like an array.

    MMDet's inferencer indexes each mask before it encodes it.
    """

    def __getitem__(self, key):
        """Return a value by its name, or pixels by their place."""
        if isinstance(key, tuple):
            return coco_masks.decode(self)[key]
        return super().__getitem__(key)


class EncodedMasks(list):
    """The encoded masks of an image."""

    def cpu(self) -> Tensor:
        """Return the plain masks, shape (N, H, W) bool, like a tensor.

        MMDet's inferencer calls this if all boxes are empty.
        """
        shape = tuple(self[0]['size']) if self else (0, 0)
        return torch.from_numpy(plain_masks(self, shape))


def encode_mask(mask: Tensor) -> RunLengths:
    """Run-length encode a mask.

    Args:
        mask (Tensor): Shape (H, W) bool.

    Returns:
        RunLengths: `size` and `counts`, as pycocotools has them.
    """
    array = np.asfortranarray(mask.cpu().numpy().view(np.uint8))
    return RunLengths(coco_masks.encode(array))


def plain_masks(masks: Tensor | list[dict], shape: tuple[int, int]) -> np.ndarray:
    """Return masks as an array.

    Args:
        masks (Tensor | list[dict]): Shape (N, H, W) bool, or N encoded masks.
        shape (tuple[int, int]): Height and width, needed if there is no mask.

    Returns:
        np.ndarray: Shape (N, H, W) bool.
    """
    if isinstance(masks, Tensor):
        return masks.cpu().numpy()
    plain = np.zeros((len(masks), *shape), bool)
    for place, runs in zip(plain, masks, strict=True):
        place[:] = coco_masks.decode(runs)
    return plain
