"""Sizes, resizing, padding and cropping: pure functions, the same for every key.

Images are (H, W, C), uint8 or float32, with three channels unless they are multi-band;
label maps are (H, W), stacked masks (N, H, W).
"""

import mmcv
import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F


def jittered_size(
    height: int, width: int, size: tuple[int, int], scale: float
) -> tuple[int, int]:
    """Return the size of an image fitted inside `size`, then scaled.

    At scale 1 the whole image just fits; the result is truncated, and at least
    one pixel remains.

    Args:
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.
        size (tuple[int, int]): Height and width to fit into.
        scale (float): Multiplies the fitted size.

    Returns:
        tuple[int, int]: New height and width.
    """
    ratio = min(size[0] / height, size[1] / width) * scale
    return max(1, int(height * ratio)), max(1, int(width * ratio))


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bilinearly with antialiasing, as torchvision does."""
    tensor = torch.from_numpy(np.array(image.transpose(2, 0, 1), order='C'))
    tensor = F.resize(
        tensor, [height, width], InterpolationMode.BILINEAR, antialias=True
    )
    return np.ascontiguousarray(tensor.numpy().transpose(1, 2, 0))


def resize_image_pil(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bilinearly as Pillow does, which takes only uint8.

    Its filter is the antialiased one of torchvision; floats are not rounded. Of four
    bands Pillow would take the last one for opacity, which the others are weighted by.
    """
    if image.dtype != np.uint8 or image.shape[2] != 3:
        return resize_image(image, height, width)
    return mmcv.imresize(image, (width, height), backend='pillow')


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize the last two axes to the nearest neighbour."""
    if 0 in labels.shape:  # no masks
        return np.zeros((*labels.shape[:-2], height, width), labels.dtype)
    # A flipped axis of one pixel is contiguous and has a negative stride.
    tensor = torch.from_numpy(np.array(labels, order='C'))[None]
    return F.resize(tensor, [height, width], InterpolationMode.NEAREST)[0].numpy()


def crop(
    array: np.ndarray, top: int, left: int, size: tuple[int, int], fill: int
) -> np.ndarray:
    """Cut `size` (height, width) out of the last two axes.

    Pixels beyond their ends are filled.
    """
    inside = array[..., top : top + size[0], left : left + size[1]]
    result = np.full((*array.shape[:-2], *size), fill, array.dtype)
    result[..., : inside.shape[-2], : inside.shape[-1]] = inside
    return result
