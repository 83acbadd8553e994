"""ToMe, token merging by bipartite matching (arXiv 2210.09461, ICLR 2023).

The natural ablation of ALGM: no threshold, no neighbourhood, a fixed number of merges
in every block. The paper compares tokens by their attention keys, averaged over the
heads, and lets a merged token attract as much attention as its parts.
"""

from collections.abc import Sequence

from eomt_mm.registry import MODELS

from .base import MergePoint, TokenMerging, whole_number
from .bipartite import PairMerges, best_partners


@MODELS.register_module()
class ToMe(TokenMerging):
    """ToMe: the `r` most similar pairs of every block are merged.

    All images of a batch have one length, so that there is no policy to choose, and
    nothing waits for the device.

    Args:
        r (int): Merges in each block; half of the tokens at most are merged.
        blocks (Sequence[int], optional): Numbers of the blocks that merge, from 1.
            Defaults to all before the queries enter.
        proportional_attention (bool): See `TokenMerging`. Defaults to True.

    Raises:
        UserError: If `r` is below 1.
    """

    uses_keys = True
    takes_policy = False
    fixed_lengths = True

    def __init__(
        self,
        r: int,
        blocks: Sequence[int] | None = None,
        proportional_attention: bool = True,
    ) -> None:
        super().__init__(blocks, proportional_attention=proportional_attention)
        self.r = whole_number('r', r, 1)

    def default_blocks(self, depth: int, num_free: int) -> tuple[int, ...]:
        """Return all blocks before the queries enter."""
        return tuple(range(1, num_free + 1))

    def propose(self, point: MergePoint) -> PairMerges | None:
        """Propose the pairs of the most similar keys; None if there is no pair."""
        num_tokens = point.keys.shape[1]
        if num_tokens < 2:
            return None
        scores, partners = best_partners(point.keys)
        count = min(self.r, num_tokens // 2)
        return PairMerges(scores, partners, count, num_tokens)
