"""Inference in even windows, and the way back to the original image.

The paper's semantic inference (arXiv 2503.19108, Sec. 4.1): the short side of the
image equals the window, and square windows lie evenly spaced along the long side,
the first and the last at the borders. Their class maps are averaged where they
overlap. `window_starts` serves both axes, so that an image larger than the window
in both (multi-scale testing) is covered by a grid of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from eomt_mm.sizes import window_starts

from .blocks import BAND, BLOCK_BYTES
from .network import product
from .precision import no_autocast


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
        times mask probability. The scores of a pixel lie side by side in memory, as
        all that follows wants them.
    """
    with no_autocast(mask_logits.device):
        # (1, K, h, w), the values of a pixel side by side here, too.
        masks = mask_logits.float().permute(1, 2, 0).contiguous()[None]
        masks = F.interpolate(masks.permute(0, 3, 1, 2), size, mode='bilinear')
        pixels = masks[0].permute(1, 2, 0).sigmoid_()  # (H, W, K)
        scores = class_logits.float().softmax(-1)[:, :-1]  # "no object" votes for none
        return product(pixels, scores.mT.contiguous()).permute(2, 0, 1)


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
            pixels = scores.new_zeros(*self.image_size, len(scores))
            self.sum = pixels.permute(2, 0, 1)
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
    scores: Tensor, size: tuple[int, int], block_bytes: int | None = None
) -> Tensor:
    """Resize class scores bilinearly and take the best class.

    A resized pixel is a mean of four neighbours: a class that is best in all four is
    best in the pixel, too. Only pixels at borders between classes are resized. All
    scores of a large photograph would take seconds and exceed the memory (150 classes
    at 6000 x 4000 pixels are 14 GiB).

    Args:
        scores (Tensor): Shape (classes, h, w).
        size (tuple[int, int]): Height and width to resize to, in pixels.
        block_bytes (int, optional): Memory that resized scores may take at once; one
            pixel is always taken. Defaults to what stays in the cache of a CPU, and
            `blocks.BLOCK_BYTES` on other devices.

    Returns:
        Tensor: Shape (height, width) int64. Where two classes are equal but for
        rounding, `interpolate` and `argmax` could find the other one.
    """
    pixels = scores.permute(1, 2, 0)  # (h, w, classes)
    h, w, num_classes = pixels.shape
    if block_bytes is None:
        block_bytes = 4 * BAND if scores.device.type == 'cpu' else BLOCK_BYTES
    best = pixels.argmax(2)
    agree = torch.ones_like(best, dtype=torch.bool)
    agree[:-1] &= best[:-1] == best[1:]
    agree[:, :-1] &= best[:, :-1] == best[:, 1:]
    agree[:-1, :-1] &= best[:-1, :-1] == best[1:, 1:]
    y, y_next, y_part = _neighbours(size[0], h, scores.device)
    x, x_next, x_part = _neighbours(size[1], w, scores.device)
    result = best.masked_fill(~agree, -1).index_select(0, y).index_select(1, x)

    pixels, flat_result = pixels.flatten(0, 1), result.view(-1)
    for undecided in (
        (flat_result < 0)
        .nonzero()[:, 0]
        # Four neighbours of a pixel, in fp32.
        .split(max(1, block_bytes // (16 * num_classes)))
    ):
        row, col = undecided // size[1], undecided % size[1]
        lines = [
            torch.lerp(
                pixels.index_select(0, first + x[col]),
                pixels.index_select(0, first + x_next[col]),
                x_part[col, None],
            )
            for first in (w * y[row], w * y_next[row])
        ]
        flat_result[undecided] = torch.lerp(*lines, y_part[row, None]).argmax(1)
    return result


def _neighbours(
    length: int, source: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two source pixels of each resized one, and the share of the second."""
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
