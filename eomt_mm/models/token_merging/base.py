"""Interface of token merging methods: they propose merges, the rest is shared.

A method looks at the tokens in the middle of a block and returns a `Merges`: how many
merges each image allows, and which tokens come together once a number of them is
settled for a group of images. Grouping, averaging, unmerging and the walk through the
ViT are the same for all methods (`batching.py`, `merge.py`, `merging_vit.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from eomt_mm.errors import UserError

from .batching import POLICIES
from .rotary import check_steps


@dataclass
class MergePoint:
    """Input of a method: the patch tokens of a batch after an attention residual.

    Attributes:
        block (int): Number of the block, from 1.
        tokens (Tensor): Residual stream of the patches, shape (B, n, C).
        grid (tuple[int, int], optional): Rows and columns, as long as nothing is
            merged and the tokens lie in raster order.
        keys (Tensor, optional): Attention keys of the patches before any rotation,
            averaged over the heads, shape (B, n, d); for methods with `uses_keys`.
    """

    block: int
    tokens: Tensor
    grid: tuple[int, int] | None
    keys: Tensor | None


class Merges(ABC):
    """Possible merges of a batch, the best first.

    Attributes:
        counts (list[int] | int): Merges that each image allows; one number where the
            method fixes it for all images.
        num_tokens (int): Tokens n of each image before.
        removes (int): Tokens that one merge takes away.
    """

    counts: list[int] | int
    num_tokens: int
    removes: int

    def tokens_left(self, count: int) -> int:
        """Return the number of tokens of an image after `count` merges."""
        return self.num_tokens - count * self.removes

    @abstractmethod
    def target(self, images: Sequence[int] | None, count: int) -> Tensor:
        """The best `count` merges of some of the images, as a map.

        Args:
            images (Sequence[int], optional): Indices into the batch; None for all.
            count (int): Number of merges, the same for all of them.

        Returns:
            Tensor: Shape (b, n) int64 with values onto 0 .. tokens_left(count) - 1.
        """


class TokenMerging(ABC):
    """A method of token merging, named by `backbone.token_merging` of a config.

    It merges patches only, between the attention and the MLP of some blocks, all of
    them before the queries enter. It has no parameters: checkpoints stay as they are.

    Args:
        blocks (Sequence[int], optional): Numbers of the blocks that merge, from 1.
            None leaves the choice to `default_blocks`.
        policy (str): Rule by which a batch agrees on a number of merges: 'min'
            (all merge as many as the least mergeable, as in EoMT, Sec. A.3), 'group'
            (the same within groups of similar images) or 'image' (each alone).
            Defaults to 'min'.
        max_groups (int): Most groups of the policy 'group'. Defaults to 4.
        proportional_attention (bool): Whether a merged token has the weight of all
            its patches in the attention that follows. Defaults to False.

    Raises:
        UserError: If an option is invalid.
    """

    uses_keys = False
    takes_policy = True  # whether the user can choose a policy
    fixed_lengths = False  # whether numbers of tokens are the same for all images

    def __init__(
        self,
        blocks: Sequence[int] | None = None,
        policy: str = 'min',
        max_groups: int = 4,
        proportional_attention: bool = False,
    ) -> None:
        if policy not in POLICIES:
            raise UserError(
                f'token_merging.policy is {policy!r}, expected one of {POLICIES}'
            )
        if not isinstance(proportional_attention, bool):
            raise UserError(
                f'token_merging.proportional_attention is {proportional_attention!r}, '
                'expected True or False'
            )
        if not isinstance(blocks, (list, tuple, type(None))):
            raise UserError(
                f'token_merging.blocks is {blocks!r}, expected numbers such as (1,3)'
            )
        self.blocks = None if blocks is None else tuple(blocks)
        self.policy = policy
        self.max_groups = whole_number('max_groups', max_groups, 1)
        self.proportional_attention = proportional_attention

    @abstractmethod
    def default_blocks(self, depth: int, num_free: int) -> tuple[int, ...]:
        """Return the blocks that merge unless the user names some.

        Args:
            depth (int): Number of blocks of the ViT.
            num_free (int): Blocks before the queries enter.
        """

    def bind(
        self,
        depth: int,
        num_free: int,
        grid: tuple[int, int],
        rope: nn.Module | None = None,
    ) -> None:
        """Settle the options that depend on the ViT; refuse those that do not fit.

        Args:
            depth (int): Number of blocks of the ViT.
            num_free (int): Blocks before the queries enter.
            grid (tuple[int, int]): Rows and columns of the patches.
            rope (nn.Module, optional): The rotary codes of the ViT, if it has any.

        Raises:
            UserError: If a block does not exist or already has queries, or the grid is
                too small for its rotary codes.
        """
        check_steps(rope, grid)
        if self.blocks is None:
            self.blocks = self.default_blocks(depth, num_free)
        numbers = all(type(block) is int for block in self.blocks)  # no bools
        if not numbers or not self.blocks or not _rises(self.blocks):
            raise UserError(
                f'token merging in the blocks {list(self.blocks)}: expected their '
                'numbers in rising order, at least one'
            )
        if self.blocks[0] < 1 or self.blocks[-1] > num_free:
            raise UserError(
                f'token merging in the blocks {list(self.blocks)}, but only blocks 1 '
                f'to {num_free} of {depth} come before the queries enter, and queries '
                'are never merged: choose earlier blocks (token_merging.blocks, of '
                'ALGM local_block and global_block)'
            )

    @abstractmethod
    def propose(self, point: MergePoint) -> Merges | None:
        """Find the possible merges of one block; return None if there are none.

        This is the one place that may wait for the device, to learn the numbers of
        merges, because they decide the shapes of all that follows.
        """


def whole_number(name: str, value: int, least: int) -> int:
    """Check an option that is a whole number.

    Args:
        name (str): The option.
        value (int): The value that the user gave.
        least (int): The smallest valid value.

    Returns:
        int: `value`.

    Raises:
        UserError: If the value is not a whole number, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(
            f'token_merging.{name} is {value!r}, expected a whole number of {least} or '
            'more'
        )
    return value


def _rises(numbers: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(numbers))
