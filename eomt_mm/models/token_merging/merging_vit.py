"""MergingViT: a ViT with queries that runs on merged tokens.

    block 1 .. first merge   the whole batch, as always
    first merge              attention | the policy divides the batch into groups,
                             each of which merges | MLP
    .. last block            every group by itself; further merges in the same way;
                             the queries enter; the final norm
    unmerge                  each patch gets a copy of its token: the full grid again

Queries, CLS and registers are never merged. The norm acts on each token alone, so that
it may precede the copies.

The host waits for the device in `TokenMerging.propose` alone, once per merge and group,
because the number of merges decides the shapes of what follows; a method with fixed
numbers (`ToMe`, `ALGM(keep=...)`) never waits.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models.eva import EvaBlock
from torch import Tensor, nn
from torch.profiler import record_function

from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from ..plain_vit import run_block
from ..query_vit import Predict, QueryViT
from .attention import attend_by_size
from .base import MergePoint, Merges, TokenMerging
from .batching import partition
from .build import build_merging
from .merge import compose, merge_means, unmerge
from .rotary import grid_places, rotary_at


@dataclass
class ImageGroup:
    """Images of one batch whose tokens have one length.

    Attributes:
        images (list[int], optional): Their indices in the batch; None for all.
        tokens (Tensor): Shape (b, first + n, C).
        first (int): Tokens in front of the patches, which are never merged.
        sizes (Tensor, optional): Patches that each of the n tokens stands for, shape
            (b, n) fp32; None before the first merge, like the next two.
        source (Tensor, optional): The token of each patch, shape (b, N) int64.
        places (Tensor, optional): Mean rows and columns of the patches that each
            token stands for, shape (b, n, 2).
        rope (Tensor, optional): Rotary codes, (N, 2d) or (b, 1, n, 2d).
    """

    images: list[int] | None
    tokens: Tensor
    first: int
    sizes: Tensor | None = None
    source: Tensor | None = None
    places: Tensor | None = None
    rope: Tensor | None = None

    def all_sizes(self) -> Tensor | None:
        """Return the sizes of all tokens, shape (b, first + n)."""
        if self.sizes is None:
            return None
        return F.pad(self.sizes, (self.first, 0), value=1.0)


@MODELS.register_module()
class MergingViT(QueryViT):
    """A `QueryViT` that merges tokens at inference.

    Merging has no parameters: any checkpoint of a `QueryViT` can be tested with it.

    Args:
        *args: Arguments of `QueryViT`.
        token_merging (dict, optional): Config of a `TokenMerging` such as `ALGM`.
            None merges nothing, until `set_merging` sets a method.
        **kwargs: Arguments of `QueryViT`.

    Raises:
        UserError: If the method does not fit the ViT, or the model is to be masked.
    """

    def __init__(self, *args, token_merging: dict | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.token_merging: TokenMerging | None = None
        if token_merging:
            self.set_merging(build_merging(token_merging))
            if any(self.mask_probs):
                refuse_training()

    def set_merging(self, method: TokenMerging | None) -> None:
        """Merge by another method, or by none.

        Args:
            method (TokenMerging, optional): Bound to this ViT here.

        Raises:
            UserError: If the method does not fit the ViT.
        """
        if method is not None:
            free = self.depth - self.num_blocks
            method.bind(self.depth, free, self.grid, self.rope)
        self.token_merging = method

    @property
    def any_residual(self) -> bool:
        """See `QueryViT`; which tokens are alike is decided in fp32."""
        return self.token_merging is None

    @property
    def fixed_lengths(self) -> bool:
        """Whether the numbers of tokens are the same for all images."""
        return self.token_merging is None or self.token_merging.fixed_lengths

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `QueryViT.forward`; refuses training mode while it merges."""
        if self.token_merging is None:
            return super().forward(images)
        if self.training:
            refuse_training()
        free = self.depth - self.num_blocks
        queries, patches, order = [], [], []  # of each group
        for group in merged_groups(self, images, free):
            tokens = self.queries.expand(group.tokens.shape[0], -1, -1)
            group.tokens = torch.cat((tokens, group.tokens), dim=1)
            group.first += self.num_queries
            for block in self.blocks[free:]:
                _run(self, block, group)
            x = self.norm(group.tokens)
            queries.append(x[:, : self.num_queries])
            x = x[:, group.first :]
            if group.source is not None:
                with record_function('token_merging.unmerge'):
                    x = unmerge(x, group.source)
            patches.append(x)
            order.append(group.images)
        # (B, K, C) and (B, C, rows, columns)
        return _in_order(queries, order), self.to_map(_in_order(patches, order))

    def forward_masked(
        self, images: Tensor, predict: Predict
    ) -> list[tuple[Tensor, Tensor]]:
        """See `QueryViT.forward_masked`; refused while it merges."""
        if self.token_merging is not None:
            refuse_training()
        return super().forward_masked(images, predict)


def _in_order(parts: list[Tensor], order: list[list[int]]) -> Tensor:
    """Bring the results of the groups into the order of the batch."""
    if len(parts) == 1:
        return parts[0]
    batch = parts[0].new_empty(sum(map(len, order)), *parts[0].shape[1:])
    for part, images in zip(parts, order, strict=True):
        batch[images] = part
    return batch


def refuse_training() -> None:
    """Raise the error of a model that is trained, or masked, with merged tokens."""
    raise UserError(
        'token_merging is for testing a model whose mask annealing is finished, and '
        'this one is in training mode or has mask_probs above 0: train without it '
        '(--cfg-options model.backbone.token_merging=None), then test with it'
    )


def merged_groups(vit: MergingViT, images: Tensor, last: int) -> Iterator[ImageGroup]:
    """Run the first blocks of a `MergingViT`.

    Args:
        vit (MergingViT): The backbone.
        images (Tensor): Normalised images, shape (B, 3, H, W).
        last (int): The last block to run, from 1; before the queries enter.

    Yields:
        ImageGroup: Groups that hold every image once, one after the other.
    """
    method = vit.token_merging
    batch = ImageGroup(
        images=None if vit.fixed_lengths else list(range(len(images))),
        tokens=vit.embed(images),
        first=vit.num_prefix_tokens,
        rope=vit.rotary_codes(),
    )
    first = min(method.blocks[0], last + 1)
    for number in range(1, first):
        _run(vit, vit.blocks[number - 1], batch)
    groups = [batch] if first > last else _divide(vit, batch, first)
    for group in groups:
        for number in range(first + 1, last + 1):
            block = vit.blocks[number - 1]
            if number not in method.blocks:
                _run(vit, block, group)
                continue
            merges = _attend_and_propose(vit, block, group, number)
            if merges is not None:
                _merge(vit, group, merges)
            _add_mlp(block, group)
        yield group


def _divide(vit: nn.Module, batch: ImageGroup, number: int) -> Iterator[ImageGroup]:
    """Run the first block that merges, and divide the batch on the way."""
    block, method = vit.blocks[number - 1], vit.token_merging
    merges = _attend_and_propose(vit, block, batch, number)
    if merges is None or method.fixed_lengths:
        if merges is not None:
            _merge(vit, batch, merges)
        _add_mlp(block, batch)
        yield batch
        return
    lengths = [merges.tokens_left(count) for count in merges.counts]
    for images in partition(lengths, method.policy, method.max_groups):
        tokens = batch.tokens if len(images) == len(lengths) else batch.tokens[images]
        group = ImageGroup(images, tokens, batch.first, rope=batch.rope)
        _merge(vit, group, merges, images)
        _add_mlp(block, group)
        yield group


def _attend_and_propose(
    vit: nn.Module, block: nn.Module, group: ImageGroup, number: int
) -> Merges | None:
    """Run the attention half of a block and propose merges after it."""
    keys = _add_attention(vit, block, group)
    # Profilers show this beside the work of the blocks.
    with record_function('token_merging.propose'):
        uses_keys = vit.token_merging.uses_keys
        keys = keys[:, :, group.first :].mean(1) if uses_keys else None  # (b, n, d)
        patches = group.tokens[:, group.first :]
        grid = vit.grid if group.source is None else None
        return vit.token_merging.propose(MergePoint(number, patches, grid, keys))


@record_function('token_merging.merge')
def _merge(
    vit: nn.Module,
    group: ImageGroup,
    merges: Merges,
    images: list[int] | None = None,
) -> None:
    """Merge as much as the least mergeable image of a group allows.

    `images` are the indices of the group's images in what `merges` was made for; None
    is all of them.
    """
    count = merges.counts
    if isinstance(count, list):
        count = min(count if images is None else [count[i] for i in images])
    if count == 0:
        return
    target = merges.target(images, count)
    length = merges.tokens_left(count)
    patches = group.tokens[:, group.first :]
    sizes = group.sizes
    if sizes is None:
        sizes = torch.ones(patches.shape[:2], device=patches.device)
    tokens, group.sizes = merge_means(patches, sizes, target, length)
    group.tokens = torch.cat((group.tokens[:, : group.first], tokens), dim=1)
    group.source = compose(group.source, target)
    if group.rope is not None:
        places = group.places
        if places is None:
            places = grid_places(vit.grid, patches.device)
            places = places.expand(patches.shape[0], -1, -1)
        group.places, _ = merge_means(places, sizes, target, length)
        group.rope = rotary_at(vit.rotary_codes(), vit.grid, group.places)


def _run(vit: nn.Module, block: nn.Module, group: ImageGroup) -> None:
    """Run one block without merging."""
    if vit.token_merging.proportional_attention and group.sizes is not None:
        _add_attention(vit, block, group)
        _add_mlp(block, group)
    else:
        group.tokens = run_block(block, group.tokens, group.rope)


def _add_attention(
    vit: nn.Module, block: nn.Module, group: ImageGroup
) -> Tensor | None:
    """Add the first residual of a block.

    Returns the attention keys (b, heads, T, d) if they were computed.
    """
    method, x, keys = vit.token_merging, block.norm1(group.tokens), None
    sizes = group.all_sizes() if method.proportional_attention else None
    if method.uses_keys or sizes is not None:
        x, keys = attend_by_size(block.attn, x, group.rope, sizes)
    else:
        x = run_block(block.attn, x, group.rope)
    group.tokens = group.tokens + _scale(block, x, 1)
    return keys


def _add_mlp(block: nn.Module, group: ImageGroup) -> None:
    """Add the second residual of a block."""
    x = block.mlp(block.norm2(group.tokens))
    group.tokens = group.tokens + _scale(block, x, 2)


def _scale(block: nn.Module, x: Tensor, half: int) -> Tensor:
    """Apply LayerScale, which timm's two families of blocks name differently."""
    if isinstance(block, EvaBlock):
        gamma = (block.gamma_1, block.gamma_2)[half - 1]
        return x if gamma is None else gamma * x
    return (block.ls1, block.ls2)[half - 1](x)
