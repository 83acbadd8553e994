"""Conditional local average pooling (CLAP): uniform windows become one token.

The first stage of ALGM (arXiv 2406.09936): a window of k x k neighbouring patches is
merged where the mean cosine similarity of its pairs is high enough. The similarities
are those of the residual stream.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Merges
from .ranks import descending_ranks, order_of, rows_of


def window_similarity(tokens: Tensor, grid: tuple[int, int], window: int) -> Tensor:
    """Compute the mean cosine similarity of all pairs of tokens in every window.

    With unit vectors u_i of n tokens, the mean over the pairs i != j is
    (|sum_i u_i|^2 - n) / (n (n - 1)): one pass over the tokens, and no tensor of pairs.
    It is computed in fp32 whatever the type of the tokens: half precision would round
    similarities as coarsely as good thresholds differ.

    Args:
        tokens (Tensor): Patch tokens in raster order, shape (B, N, C).
        grid (tuple[int, int]): Rows and columns of the patches. Rows and columns
            beyond the last whole window belong to none.
        window (int): Side k of the windows in patches.

    Returns:
        Tensor: Shape (B, W) fp32, windows in raster order.
    """
    rows, cols = (side // window for side in grid)
    units = F.normalize(tokens.float(), dim=-1).unflatten(1, grid)
    units = units[:, : rows * window, : cols * window]
    units = units.unflatten(1, (rows, window)).unflatten(3, (cols, window))
    sums = units.sum(dim=(2, 4)).flatten(1, 2)  # (B, W, C)
    members = window * window
    return (sums.square().sum(-1) - members) / (members * (members - 1))


def passing(scores: Tensor, threshold: float) -> Tensor:
    """Select the windows that are similar enough to be merged.

    A threshold of 1 merges nothing: rounding moves the similarity of equal tokens above
    1 as often as below.

    Args:
        scores (Tensor): Similarities of any shape.
        threshold (float): Least similarity that is merged, in [-1, 1].

    Returns:
        Tensor: The same shape, bool.
    """
    return (scores >= threshold) & (threshold < 1)


def window_of_patch(grid: tuple[int, int], window: int, device=None) -> Tensor:
    """Return the number of the window of each patch; W for patches in none.

    Args:
        grid (tuple[int, int]): Rows and columns of the patches.
        window (int): Side of the windows in patches.
        device (torch.device, optional): Device of the result.

    Returns:
        Tensor: Shape (N,) int64.
    """
    rows, cols = (side // window for side in grid)
    row = torch.arange(grid[0], device=device)[:, None] // window
    col = torch.arange(grid[1], device=device) // window
    inside = (row < rows) & (col < cols)
    return torch.where(inside, row * cols + col, rows * cols).flatten()


class WindowMerges(Merges):
    """Windows by similarity.

    Args:
        scores (Tensor): Similarity of each window, shape (B, W).
        counts (list[int] | int): Windows to merge in each image.
        grid (tuple[int, int]): Rows and columns of the patches.
        window (int): Side of the windows in patches.
    """

    def __init__(
        self,
        scores: Tensor,
        counts: list[int] | int,
        grid: tuple[int, int],
        window: int,
    ) -> None:
        self.scores, self.grid, self.window = scores, grid, window
        self.counts = counts
        self.num_tokens = grid[0] * grid[1]
        self.removes = window * window - 1

    def target(self, images: Sequence[int] | None, count: int) -> Tensor:
        """Number merged windows first, by similarity; then the rest in order."""
        ranks = descending_ranks(rows_of(self.scores, images))
        # Patches in no window rank after all windows.
        ranks = F.pad(ranks, (0, 1), value=self.scores.shape[1])
        window = window_of_patch(self.grid, self.window, ranks.device)
        ranks = ranks[:, window]  # (b, N)
        return torch.where(ranks < count, ranks, count + order_of(ranks >= count))
