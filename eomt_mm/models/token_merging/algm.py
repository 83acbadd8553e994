"""ALGM, adaptive local-then-global token merging (arXiv 2406.09936, CVPR 2024).

Two merges: uniform windows of neighbouring patches in an early block, then similar
tokens from anywhere in a later one. EoMT's Table 9 (arXiv 2503.19108) applies it to
a trained model, at inference only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from .base import MergePoint, Merges, TokenMerging, whole_number
from .bipartite import PairMerges, best_partners
from .calibration import read_threshold
from .window_merges import WindowMerges, passing, window_similarity

# The second merge of published models: block 5 of 12, 7 of 24 (ALGM's Segmenter); there
# is no figure for 40 blocks, 12 is the same share.
GLOBAL_BLOCKS = {12: 5, 24: 7, 40: 12}


@MODELS.register_module()
class ALGM(TokenMerging):
    """Local merging by a threshold, then global merging by the image's own statistics.

    Args:
        threshold (float | str, optional): Least mean cosine similarity of a window
            that is merged, in [-1, 1], or 'auto', which reads it from `calibration`.
            1 merges nothing.
            Good values depend on the model: none fits another backbone.
        calibration (str, optional): JSON file of
            `tools/analysis_tools/calibrate_algm.py`, for `threshold='auto'`.
        local_block (int, optional): Block of the local merge, from 1. None leaves it
            out. Defaults to 1.
        global_block (int | str, optional): Block of the global merge. 'auto' is 5, 7
            or 12 for ViTs of 12, 24 or 40 blocks, and 0.3 of the depth for others.
            None leaves it out. Defaults to 'auto'.
        window (int): Side of the windows in patches. Defaults to 2.
        keep (tuple[float, float], optional): Fixed sizes instead of thresholds: the
            shares of tokens that the local merge leaves of all, and the global merge
            of those. Nothing waits for the device then. Windows of 2 x 2 cannot go
            below 0.25, pairs not below 0.5.
        policy (str): See `TokenMerging`. Defaults to 'min'.
        max_groups (int): See `TokenMerging`. Defaults to 4.
        proportional_attention (bool): See `TokenMerging`. ALGM has none. Defaults to
            False.

    Raises:
        UserError: If an option is invalid or ineffective.
    """

    def __init__(
        self,
        threshold: float | str | None = None,
        calibration: str | None = None,
        local_block: int | None = 1,
        global_block: int | str | None = 'auto',
        window: int = 2,
        keep: tuple[float, float] | None = None,
        policy: str = 'min',
        max_groups: int = 4,
        proportional_attention: bool = False,
    ) -> None:
        super().__init__(None, policy, max_groups, proportional_attention)
        if local_block is not None:
            whole_number('local_block', local_block, 1)
        if global_block not in (None, 'auto'):
            whole_number('global_block', global_block, 1)
        self.local_block, self.global_block = local_block, global_block
        self.window = whole_number('window', window, 2)
        self.keep = None if keep is None else _check_keep(keep, window)
        self.fixed_lengths = keep is not None
        self._refuse_idle(threshold, calibration)
        if threshold == 'auto':
            threshold = read_threshold(calibration, local_block, window)
        if keep is None and local_block is not None:
            _check_threshold(threshold)
        self.threshold = threshold

    def _refuse_idle(self, threshold, calibration) -> None:
        """Refuse options that the others make ineffective."""
        if calibration is not None and threshold != 'auto':
            raise UserError(
                f'token_merging.calibration is {calibration!r}, but only '
                f"threshold='auto' reads it and token_merging.threshold is "
                f'{threshold!r}: give one of them'
            )
        if threshold is not None and (self.keep or self.local_block is None):
            other = (
                'local_block is None' if self.keep is None else f'keep is {self.keep}'
            )
            raise UserError(
                f'token_merging.threshold is {threshold!r} and token_merging.{other}: '
                'give one of them (a threshold is of the local merge; keep replaces it)'
            )
        merges = ('local_block', self.local_block), ('global_block', self.global_block)
        for (name, block), share in zip(merges, self.keep or (1, 1), strict=True):
            if block is None and share != 1:
                raise UserError(
                    f'token_merging.keep is {self.keep}, but token_merging.{name} is '
                    f'None: expected 1 in the place of {share} for a merge that is '
                    'left out'
                )

    def default_blocks(self, depth: int, num_free: int) -> tuple[int, ...]:
        """Return the local and the global block, unless they are switched off."""
        last = self.global_block
        if last == 'auto':
            first = (self.local_block or 0) + 1
            last = GLOBAL_BLOCKS.get(depth, round(0.3 * depth))
            last = min(max(last, 2, first), num_free)
            if last < first:
                raise UserError(
                    f"token_merging.global_block is 'auto', but after local_block "
                    f'{self.local_block} there is none before the queries enter, with '
                    f'{depth} blocks of which {num_free} come before: choose an '
                    'earlier local_block, or global_block=None'
                )
        return tuple(b for b in (self.local_block, last) if b is not None)

    def bind(
        self,
        depth: int,
        num_free: int,
        grid: tuple[int, int],
        rope: nn.Module | None = None,
    ) -> None:
        """See `TokenMerging.bind`."""
        super().bind(depth, num_free, grid, rope)
        if self.window > min(grid):
            raise UserError(
                f'token_merging.window is {self.window}, but the grid has only '
                f'{grid[0]} x {grid[1]} patches'
            )

    def propose(self, point: MergePoint) -> Merges | None:
        """Propose windows in the local block, pairs in the global one."""
        if point.block == self.local_block:
            return self._windows(point)
        return self._pairs(point)

    def _windows(self, point: MergePoint) -> WindowMerges:
        scores = window_similarity(point.tokens, point.grid, self.window)
        if self.keep:
            num_tokens, removes = point.tokens.shape[1], self.window**2 - 1
            count = round((1 - self.keep[0]) * num_tokens / removes)
            counts = min(count, scores.shape[1])
        else:
            counts = passing(scores, self.threshold).sum(1).tolist()
        return WindowMerges(scores, counts, point.grid, self.window)

    def _pairs(self, point: MergePoint) -> PairMerges | None:
        num_tokens = point.tokens.shape[1]
        if num_tokens < 4:
            return None  # a deviation needs two pairs
        scores, partners = best_partners(point.tokens)
        if self.keep:
            count = round((1 - self.keep[1]) * num_tokens)
            counts = min(count, scores.shape[1])
        else:
            counts = (scores >= adaptive_threshold(scores, point.block)).sum(1).tolist()
        return PairMerges(scores, partners, counts, num_tokens)


def adaptive_threshold(scores: Tensor, block: int) -> Tensor:
    """Return the least similarity of a pair to merge globally: mean + std / block.

    Computed for each image alone, so that its result does not depend on its batch.

    Args:
        scores (Tensor): Similarities of the pairs, shape (B, n) with n >= 2.
        block (int): Number of the block that merges, from 1.

    Returns:
        Tensor: Shape (B, 1).
    """
    std, mean = torch.std_mean(scores, dim=1, keepdim=True)
    return mean + std / block


def _check_threshold(threshold: float | str | None) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise UserError(
            f'token_merging.threshold is {threshold!r}, expected a number in [-1, 1], '
            "or 'auto' with token_merging.calibration=FILE from "
            'tools/analysis_tools/calibrate_algm.py'
        )
    if not -1 <= threshold <= 1:
        raise UserError(
            f'token_merging.threshold is {threshold}, but it is a mean cosine '
            'similarity: expected a number in [-1, 1], such as 0.9'
        )


def _check_keep(keep: Sequence[float], window: int) -> tuple[float, ...]:
    least = (1 / window**2, 0.5)
    pair = isinstance(keep, (tuple, list)) and len(keep) == 2
    # bool is a subclass of int.
    pair = pair and all(
        isinstance(share, (int, float)) and not isinstance(share, bool)
        for share in keep
    )
    if not pair or not all(a <= b <= 1 for a, b in zip(least, keep, strict=True)):
        raise UserError(
            f'token_merging.keep is {keep}, expected two shares, of the local merge in '
            f'[{least[0]:g}, 1] and of the global one in [0.5, 1]'
        )
    return tuple(keep)
