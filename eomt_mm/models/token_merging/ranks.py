"""Ranks and running numbers of the elements of a row, from which maps are made."""

from collections.abc import Sequence

import torch
from torch import Tensor


def rows_of(x: Tensor, images: Sequence[int] | None) -> Tensor:
    """Select images of a batch; returns the tensor itself for all of them."""
    return x if images is None or len(images) == len(x) else x[list(images)]


def descending_ranks(scores: Tensor) -> Tensor:
    """Rank every score within its row, 0 the largest; ties go by position.

    Args:
        scores (Tensor): Shape (B, n).

    Returns:
        Tensor: Shape (B, n) int64.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def order_of(kept: Tensor) -> Tensor:
    """Number each kept element of a row, from 0; the values of others mean nothing.

    Args:
        kept (Tensor): Shape (B, n) bool.

    Returns:
        Tensor: Shape (B, n) int64.
    """
    return kept.cumsum(1) - 1
