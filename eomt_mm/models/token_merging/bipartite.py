"""Bipartite matching: tokens of one half merge into the most similar of the other.

The tokens at even places each name the most similar token at an odd place, and the
best pairs are merged. ToMe (arXiv 2210.09461) introduced it, with a
fixed number of pairs; the second stage of ALGM, global bipartite matching (GBM), takes
as many pairs as pass a threshold.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..precision import no_autocast
from .base import Merges
from .ranks import descending_ranks, order_of, rows_of


def best_partners(features: Tensor, max_elements: int = 2**24) -> tuple[Tensor, Tensor]:
    """Find, for each token at an even place, the most similar one at an odd place.

    Similarities are cosines, computed in fp32 even under autocast.

    Args:
        features (Tensor): Shape (B, n, C) with n >= 2.
        max_elements (int): Bound on the similarities that exist at once; tokens
            at even places are taken in portions. Defaults to 2**24, 64 MiB.

    Returns:
        tuple[Tensor, Tensor]: Similarities (B, ceil(n / 2)) and indices among the odd
        places (B, ceil(n / 2)) int64.
    """
    units = F.normalize(features.float(), dim=-1)
    even, odd = units[:, ::2], units[:, 1::2].mT
    portion = even.shape[1]
    # An exported graph has no loop: its number of images is open.
    if not torch.compiler.is_exporting():
        portion = max(1, max_elements // (odd.shape[0] * odd.shape[2]))
    with no_autocast(features.device):
        best = [(some @ odd).max(-1) for some in even.split(portion, dim=1)]
    scores, partners = zip(*best, strict=True)
    return torch.cat(scores, 1), torch.cat(partners, 1)


class PairMerges(Merges):
    """Pairs by similarity; several tokens may have one partner.

    Args:
        scores (Tensor): Similarity of each even token and its partner, shape
            (B, ceil(n / 2)).
        partners (Tensor): Index of the partner among the odd tokens, the same shape.
        counts (list[int] | int): Pairs to merge in each image.
        num_tokens (int): Number n of tokens, even and odd.
    """

    removes = 1

    def __init__(
        self,
        scores: Tensor,
        partners: Tensor,
        counts: list[int] | int,
        num_tokens: int,
    ) -> None:
        self.scores, self.partners = scores, partners
        self.counts, self.num_tokens = counts, num_tokens

    def target(self, images: Sequence[int] | None, count: int) -> Tensor:
        """Number the remaining even tokens first, in order; then all odd ones."""
        ranks = descending_ranks(rows_of(self.scores, images))
        partners = rows_of(self.partners, images)
        kept = ranks.shape[1] - count
        target = ranks.new_empty(ranks.shape[0], self.num_tokens)
        target[:, ::2] = torch.where(
            ranks < count, kept + partners, order_of(ranks >= count)
        )
        target[:, 1::2] = torch.arange(
            kept, kept + self.num_tokens // 2, device=target.device
        )
        return target
