"""Merging and unmerging of patch tokens, as pure tensor functions.

A merge is an integer map: `target[b, i]` is the new place of token i of image b.
Tokens with one target become their mean, weighted by the number of original patches
that each already stands for. `source[b, p]` is where original patch p ended up; it is
the composition of all targets so far, and unmerging copies along it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def merge_means(
    tokens: Tensor, sizes: Tensor, target: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Average the tokens that share a target.

    The order of summation is fixed on every device: no atomic additions. A token that
    is alone keeps its bits.

    Args:
        tokens (Tensor): Shape (B, n, C).
        sizes (Tensor): Patches that each token stands for, shape (B, n) fp32.
        target (Tensor): New places, shape (B, n) int64, onto 0 .. count - 1.
        count (int): Number of tokens of each image afterwards.

    Returns:
        tuple[Tensor, Tensor]: Tokens of shape (B, count, C) and sizes (B, count).
    """
    if torch.compiler.is_exporting():
        return _means_by_product(tokens, sizes, target, count)
    batch, _, dims = tokens.shape
    offset = count * torch.arange(batch, device=target.device)
    place = (target + offset[:, None]).flatten()
    # Sums of small whole numbers are exact, whatever their order.
    merged_sizes = sizes.new_zeros(batch * count).scatter_add_(
        0, place, sizes.flatten()
    )
    weights = sizes.flatten() / merged_sizes[place]
    # Each new token is a bag of rows: one kernel gathers, weighs and adds them.
    order = place.argsort(stable=True)
    starts = torch.searchsorted(
        place[order], torch.arange(batch * count, device=place.device)
    )
    means = F.embedding_bag(
        order,
        tokens.float().flatten(0, 1),
        starts,
        mode='sum',
        per_sample_weights=weights[order],
    )
    return (
        means.to(tokens.dtype).view(batch, count, dims),
        merged_sizes.view(batch, count),
    )


def _means_by_product(
    tokens: Tensor, sizes: Tensor, target: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Compute what `merge_means` returns by operations that all exports have."""
    places = torch.arange(count, device=target.device)[:, None]
    shares = (target[:, None] == places) * sizes[:, None]  # (B, count, n)
    merged_sizes = shares.sum(-1)
    means = (shares / merged_sizes[..., None]) @ tokens.float()
    return means.to(tokens.dtype), merged_sizes


def compose(source: Tensor | None, target: Tensor) -> Tensor:
    """Follow one more merge.

    Args:
        source (Tensor, optional): Shape (B, N), places of the original patches among
            n tokens; None before the first merge.
        target (Tensor): Shape (B, n), new places of those tokens.

    Returns:
        Tensor: Shape (B, N) int64, new places of the original patches.
    """
    return target if source is None else target.gather(1, source)


def unmerge(tokens: Tensor, source: Tensor) -> Tensor:
    """Copy every merged token to all patches that it stands for.

    Args:
        tokens (Tensor): Shape (B, n, C).
        source (Tensor): Shape (B, N), see `compose`.

    Returns:
        Tensor: Shape (B, N, C).
    """
    return tokens.gather(1, source[..., None].expand(-1, -1, tokens.shape[-1]))
