"""Inference in even windows, and the way back to the original image.

The paper's semantic inference (arXiv 2503.19108, Sec. 4.1): the short side of the
image equals the window, and square windows lie evenly spaced along the long side,
the first and the last at the borders. Their class maps are averaged where they
overlap. `window_starts` serves both axes, so that an image larger than the window
in both (multi-scale testing) is covered by a grid of them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import no_autocast


def window_starts(length: int, size: int) -> list[int]:
    """First pixels of evenly spaced windows that cover a side.

    Args:
        length (int): Side of the image in pixels, at least `size`.
        size (int): Side of the window in pixels.

    Returns:
        list[int]: ceil(length / size) starts, from 0 to length - size.
    """
    count = math.ceil(length / size)
    if count == 1:
        return [0]
    overlap = (count * size - length) / (count - 1)
    starts = [int(i * (size - overlap)) for i in range(count)]
    # The float product can end a pixel short of the border (lengths beyond seven
    # windows of 640), which would leave the last column without any window.
    starts[-1] = length - size
    return starts


def class_map(
    class_logits: Tensor, mask_logits: Tensor, size: tuple[int, int]
) -> Tensor:
    """Combine the queries of one window into a score per class and pixel.

    Args:
        class_logits (Tensor): Shape (K, classes + 1).
        mask_logits (Tensor): Shape (K, h, w).
        size (tuple[int, int]): Height and width of the window in pixels.

    Returns:
        Tensor: Shape (classes, H, W) fp32, sum over queries of class probability
        times mask probability.
    """
    with no_autocast(mask_logits.device):
        masks = F.interpolate(mask_logits[None].float(), size, mode='bilinear')[0]
        scores = class_logits.float().softmax(-1)[:, :-1]  # "no object" votes for none
        return (scores.T @ masks.sigmoid_().flatten(1)).unflatten(1, size)


class WindowAverage:
    """Mean of overlapping class maps.

    Args:
        image_size (tuple[int, int]): Height and width of the image, each at least
            that of a window.
        size (tuple[int, int]): Height and width of a window in pixels.

    Attributes:
        corners (list[tuple[int, int]]): Top and left of every window, row by row.
    """

    def __init__(self, image_size: tuple[int, int], size: tuple[int, int]) -> None:
        self.image_size, self.size = image_size, size
        self.rows = window_starts(image_size[0], size[0])
        self.cols = window_starts(image_size[1], size[1])
        self.corners = [(top, left) for top in self.rows for left in self.cols]
        self.sum: Tensor | None = None

    def crop(self, image: Tensor, index: int) -> Tensor:
        """Cut a window out of an image.

        Args:
            image (Tensor): Shape (C, H, W).
            index (int): Number of the window in `corners`.

        Returns:
            Tensor: Shape (C, h, w), a view.
        """
        top, left = self.corners[index]
        return image[:, top : top + self.size[0], left : left + self.size[1]]

    def add(self, index: int, scores: Tensor) -> None:
        """Add the map of one window.

        Args:
            index (int): Number of the window in `corners`.
            scores (Tensor): Shape (classes, h, w), the size of a window.
        """
        if len(self.corners) == 1:
            self.sum = scores
            return
        if self.sum is None:
            self.sum = scores.new_zeros(len(scores), *self.image_size)
        top, left = self.corners[index]
        height, width = self.size
        self.sum[:, top : top + height, left : left + width] += scores

    def mean(self) -> Tensor:
        """Return the average, shape (classes, H, W)."""
        if len(self.corners) > 1:
            rows = _coverage(self.rows, self.size[0]).to(self.sum)
            cols = _coverage(self.cols, self.size[1]).to(self.sum)
            self.sum /= rows[:, None] * cols
        return self.sum


def resized_argmax(
    scores: Tensor, size: tuple[int, int], max_elements: int | None = None
) -> Tensor:
    """Resize class scores bilinearly and take the best class.

    Hardly any score is really resized. A resized pixel is a mean of four neighbours, so
    that a class that is the best of all four of them is its best, too. What is left are
    the borders between classes. All scores of a large photograph would take seconds and
    not fit in memory (150 classes at 6000 x 4000 pixels are 14 GiB).

    Args:
        scores (Tensor): Shape (classes, h, w).
        size (tuple[int, int]): Height and width to resize to, in pixels.
        max_elements (int, optional): Bound on the scores that are resized at once.
            Defaults to what stays in the cache of a CPU, and more on other devices.

    Returns:
        Tensor: Shape (height, width) int64. Where two classes are equal but for
        rounding, `interpolate` and `argmax` could find the other one.
    """
    num_classes, h, w = scores.shape
    if max_elements is None:
        max_elements = 2**20 if scores.device.type == 'cpu' else 2**26
    best = scores.argmax(0)
    below, beside = best[1:], best[:, 1:]
    agree = torch.ones_like(best, dtype=torch.bool)
    agree[:-1] &= best[:-1] == below
    agree[:, :-1] &= best[:, :-1] == beside
    agree[:-1, :-1] &= best[:-1, :-1] == best[1:, 1:]
    y, y_next, y_part = _neighbours(size[0], h, scores.device)
    x, x_next, x_part = _neighbours(size[1], w, scores.device)
    result = best.masked_fill(~agree, -1).index_select(0, y).index_select(1, x)

    flat, flat_result = scores.flatten(1), result.view(-1)
    for open_pixels in (
        (flat_result < 0)
        .nonzero()[:, 0]
        .split(max(1, max_elements // (4 * num_classes)))
    ):
        row, col = open_pixels // size[1], open_pixels % size[1]
        lines = [
            torch.lerp(
                flat.index_select(1, start + x[col]),
                flat.index_select(1, start + x_next[col]),
                x_part[col],
            )
            for start in (w * y[row], w * y_next[row])
        ]
        flat_result[open_pixels] = torch.lerp(*lines, y_part[row]).argmax(0)
    return result


def _neighbours(
    length: int, source: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The two source pixels of each resized one, and the part of the second."""
    at = (torch.arange(length, device=device) + 0.5) * (source / length) - 0.5
    at = at.clamp(0, source - 1)
    first = at.long()
    return first, (first + 1).clamp(max=source - 1), at - first


def _coverage(starts: list[int], size: int) -> Tensor:
    """Number of windows over each pixel of one side."""
    count = torch.zeros(starts[-1] + size)
    for start in starts:
        count[start : start + size] += 1
    return count
