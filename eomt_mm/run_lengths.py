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


def encode_masks(masks: Tensor) -> list[RunLengths]:
    """Run-length encode masks where they are; only the ends of runs travel.

    A hundred masks of 1280 x 960 pixels are 123 MB otherwise.

    Args:
        masks (Tensor): Shape (N, H, W) bool.

    Returns:
        list[RunLengths]: `size` and `counts` of each, byte for byte pycocotools'.
    """
    height, width = masks.shape[1:]
    length = height * width
    # Runs go down the columns, and the first one is of zeros.
    columns = masks.transpose(1, 2).flatten(1)
    ends = columns.clone()
    ends[:, 1:] ^= columns[:, :-1]
    flat = ends.flatten()
    if flat.device.type == 'cpu':  # eight times as fast as PyTorch's
        places = np.flatnonzero(flat.numpy())
    else:
        places = flat.nonzero()[:, 0].cpu().numpy()
    bounds = np.searchsorted(places, length * np.arange(len(masks) + 1))
    encoded = []
    for i in range(len(masks)):
        own = places[bounds[i] : bounds[i + 1]] - i * length
        runs = dict(size=[height, width], counts=np.diff(own, prepend=0, append=length))
        encoded.append(RunLengths(coco_masks.frPyObjects(runs, height, width)))
    return encoded


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
