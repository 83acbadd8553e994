"""What a network on a CPU is to compute with, decided by timing its own layers."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .. import masked_attention
from ..mask_head import MASK_STRIDE, MaskHead, MaskProduct
from ..plain_vit import run_block
from ..query_vit import QueryViT
from . import attention, layers, onednn
from .choice import fastest

PYTORCH, ONEDNN = 'PyTorch', 'oneDNN'
AUTOCAST, THROUGHOUT = 'autocast', 'throughout'
# Multiply-adds of one call that is timed: as many as a thread does in some 20 ms. Of
# fewer rows oneDNN would mostly bring weights into its own order.
WORK = {torch.float32: 1e9, torch.bfloat16: 4e9}
# A residual stream in bf16 has 40 times the error in class logits. It must be worth it.
GAIN_OF_THROUGHOUT = 0.15


def prepare(backbone: QueryViT, head: MaskHead, dtype: torch.dtype) -> bool:
    """Let a network on a CPU compute by the faster library, layer by layer.

    Args:
        backbone (QueryViT): For inference only; changed in place, but parameters and
            their names stay.
        head (MaskHead): The same.
        dtype (torch.dtype): fp32 or bf16, that of the products.

    Returns:
        bool: Whether bf16 is to go through the whole network, the residual stream and
        norms too, instead of autocast.
    """
    onednn.keep_freed_memory()
    half = dtype == torch.bfloat16
    with torch.inference_mode(), torch.autocast('cpu', dtype, enabled=half):
        if onednn.is_available(dtype):
            _choose_kernels(backbone, head, dtype)
    return half and backbone.any_residual and _throughout_is_faster(backbone)


def cast_throughout(module: nn.Module) -> None:
    """Cast all parameters to bf16 but those of the class head, whose scores count.

    Args:
        module (nn.Module): A `QueryViT` or a `MaskHead`; changed in place.
    """
    for name, parameter in module.named_parameters():
        if not name.startswith('class_head.'):
            parameter.data = parameter.data.bfloat16()


def _choose_kernels(backbone: QueryViT, head: MaskHead, dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix('torch.')
    block, dims = backbone.blocks[0], backbone.embed_dims
    mlp, faster = block.mlp, copy.deepcopy(block.mlp)
    layers.use_linear(faster)
    x = _numbers(1, _rows(backbone, mlp, dtype), dims)
    ways = {PYTORCH: lambda: mlp(x), ONEDNN: lambda: faster(x)}
    if fastest(f'linear layers, {name}', tuple(x.shape), ways) == ONEDNN:
        for module in (backbone, head):
            layers.use_linear(module)

    heads, tokens = block.attn.num_heads, _tokens(backbone)
    some = min(heads, torch.get_num_threads())
    # As the layers make them: not contiguous.
    qkv = _numbers(1, tokens, 3, some, dims // heads).to(dtype).permute(2, 0, 3, 1, 4)
    ways = _ways(masked_attention.attend, attention.attend, *qkv)
    if fastest(f'attention, {name}', tuple(qkv.shape), ways) == ONEDNN:
        layers.use_attention(backbone)

    embeddings = _numbers(1, backbone.num_queries, dims).to(dtype)
    height, width = (side // MASK_STRIDE for side in backbone.img_size)
    height = max(
        1, min(height, int(WORK[torch.float32] / (embeddings.numel() * width)))
    )
    features = _numbers(1, height, width, dims).to(dtype).permute(0, 3, 1, 2)
    ways = _ways(MaskProduct(), layers.OneDnnMaskProduct(), embeddings, features)
    shape = (*embeddings.shape, height, width)
    if fastest(f'mask product, {name}', shape, ways) == ONEDNN:
        layers.use_mask_product(head)


def _throughout_is_faster(backbone: QueryViT) -> bool:
    """Time a block under autocast against the same block in bf16."""
    block = backbone.blocks[0]
    half = copy.deepcopy(block)
    cast_throughout(half)
    rows = _rows(backbone, block, torch.bfloat16)
    x = _numbers(1, rows, backbone.embed_dims)
    x_half, rope = x.bfloat16(), backbone.rotary_codes()
    rope = None if rope is None else rope[: x.shape[1]]
    cast = torch.autocast('cpu', torch.bfloat16)
    ways = {
        AUTOCAST: cast(lambda: run_block(block, x, rope)),
        THROUGHOUT: lambda: run_block(half, x_half, rope),
    }
    with torch.inference_mode():
        best = fastest('bf16', tuple(x.shape), ways, GAIN_OF_THROUGHOUT)
    return best == THROUGHOUT


def _ways(plain: Callable, faster: Callable, *args: Tensor) -> dict[str, Callable]:
    return {PYTORCH: lambda: plain(*args), ONEDNN: lambda: faster(*args)}


def _tokens(backbone: QueryViT) -> int:
    """Tokens of the last blocks."""
    rows, cols = backbone.grid
    return backbone.num_queries + backbone.num_prefix_tokens + rows * cols


def _rows(backbone: QueryViT, module: nn.Module, dtype: torch.dtype) -> int:
    """Tokens for which a module is timed: all, or as many as there is time for."""
    weights = sum(parameter.numel() for parameter in module.parameters())
    affordable = int(torch.get_num_threads() * WORK[dtype] / weights)
    return max(1, min(_tokens(backbone), affordable))


def _numbers(*shape: int) -> Tensor:
    """Normal numbers that leave the process's random state as it is."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
