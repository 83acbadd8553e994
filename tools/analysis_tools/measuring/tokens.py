"""Cost of a forward pass: tokens in every block, and multiply-accumulates.

One multiply-accumulate is one operation, as in the GFLOPs of the paper's tables. The
formula needs only the numbers of tokens, so that it can run while a model is timed;
`operations.count_operations` counts operation by operation.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from eomt_mm.models.token_merging.attention import EXTRA_CHANNELS


@dataclass
class TokenCount:
    """Tokens in every block.

    Attributes:
        attended (list[list[tuple[int, int]]]): Images and tokens of an image at the
            attention, for each block and each pass through it.
        processed (list[list[tuple[int, int]]]): Images and tokens at the MLP.
        proportional (bool): Whether merged tokens weigh as much as their parts.
    """

    attended: list[list[tuple[int, int]]] = field(default_factory=list)
    processed: list[list[tuple[int, int]]] = field(default_factory=list)
    proportional: bool = False

    def means(self) -> list[float]:
        """Return the mean tokens of an image at the MLP of every block."""
        return [_mean(passes, lambda tokens: tokens) for passes in self.processed]


@contextmanager
def count_tokens(vit: nn.Module) -> Iterator[TokenCount]:
    """Count the tokens in the blocks of a `QueryViT`, whatever runs them.

    Args:
        vit (QueryViT): The backbone.

    Yields:
        TokenCount: Complete when the context ends.
    """
    method = getattr(vit, 'token_merging', None)
    proportional = method is not None and method.proportional_attention
    counts, hooks = TokenCount(proportional=proportional), []
    for block in vit.blocks:
        # Both halves of a block begin with a norm.
        for norm, passes in (
            (block.norm1, counts.attended),
            (block.norm2, counts.processed),
        ):
            passes.append([])
            hooks.append(norm.register_forward_pre_hook(_recorder(passes[-1])))
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def _recorder(passes: list[tuple[int, int]]):
    def record(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        passes.append(tuple(args[0].shape[:2]))

    return record


def forward_macs(vit: nn.Module, head: nn.Module, counts: TokenCount) -> float:
    """Compute the multiply-accumulates of an image from the numbers of its tokens.

    With n tokens at the attention and m at the MLP a block of width D takes
    4 D^2 n + 2 n^2 D + 8 D^2 m; proportional attention adds 8 channels to every head
    once tokens are merged, 2 n^2 * 8 * heads. To this come patch embedding and mask
    head, which see the full grid. Norms, biases, activations and the merging itself
    are not counted.

    Args:
        vit (QueryViT): The backbone.
        head (MaskHead): The head.
        counts (TokenCount): Counts of one or more images; the result is their mean.

    Returns:
        float: Multiply-accumulates per image.
    """
    cells = vit.grid[0] * vit.grid[1]
    total = vit.patch_embed.proj.weight.numel() * cells
    for number, (block, attended, processed) in enumerate(
        zip(vit.blocks, counts.attended, counts.processed, strict=True), start=1
    ):
        unmerged = vit.num_prefix_tokens + cells
        if number > vit.depth - vit.num_blocks:
            unmerged += vit.num_queries
        extra = EXTRA_CHANNELS if counts.proportional else 0
        total += _mean(attended, partial(_attention_macs, block.attn, unmerged, extra))
        mlp = _weights(block.mlp)
        total += _mean(processed, lambda n, w=mlp: w * n)
    return total + _head_macs(head, vit.num_queries, vit.grid)


def _attention_macs(attn: nn.Module, unmerged: int, extra: int, tokens: int) -> int:
    # Before anything is merged all tokens weigh the same: no extra channels.
    channels = attn.head_dim + (extra if tokens < unmerged else 0)
    return _weights(attn) * tokens + 2 * attn.num_heads * channels * tokens**2


def _mean(passes: Sequence[tuple[int, int]], cost) -> float:
    images = sum(batch for batch, _ in passes)
    return sum(batch * cost(tokens) for batch, tokens in passes) / images


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() == 2)


def _head_macs(head: nn.Module, num_queries: int, grid: tuple[int, int]) -> int:
    total, cells = 0, grid[0] * grid[1]
    for scale in head.upscale:
        total += scale.conv1.weight.numel() * cells
        cells *= 4
        total += scale.conv2.weight.numel() * cells
    per_query = _weights(head.class_head) + _weights(head.mask_mlp)
    return total + num_queries * (per_query + head.embed_dims * cells)
