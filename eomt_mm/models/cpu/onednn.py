"""Inference on a CPU: matrix products by oneDNN.

PyTorch leaves fp32 matrix products to Intel's MKL, which used half of what an AMD EPYC
with AVX-512 can do. It ships oneDNN as well, and uses it for convolutions and for bf16:
the functions here ask it directly. On an Intel Xeon with AMX they were the slower ones,
so `choice` decides. Gradients do not go through them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .choice import fastest

# Rows of a product that are timed: some milliseconds.
ROWS = 2**15


def is_available(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has what is needed here, and this CPU for bf16 (AVX-512)."""
    if not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, '_linear_pointwise'):
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, after: str = 'none'
) -> Tensor:
    """A linear layer, and a function behind it that is computed along with it.

    Args:
        x (Tensor): Shape (..., I).
        weight (Tensor): Shape (O, I), fp32 or bf16, to which all is cast; dense, or it
            is slow.
        bias (Tensor, optional): Shape (O,).
        after (str): 'none', 'gelu' or 'sigmoid', of the sums in fp32. Defaults to
            'none'.

    Returns:
        Tensor: Shape (..., O).
    """
    x = x.to(weight.dtype)
    bias = None if bias is None else bias.to(weight.dtype)
    if torch.compiler.is_compiling():
        return _closed_linear(x, weight, bias, after)
    return _linear(x, weight, bias, after)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, after: str) -> Tensor:
    algorithm = 'none' if after == 'gelu' else ''  # of GELU, no approximation
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], algorithm)


# The compiler takes the operator apart, and then wants weights that are constants.
_closed_linear = torch.library.custom_op(
    'eomt_mm::linear',
    _linear,
    mutates_args=(),
    schema='(Tensor x, Tensor weight, Tensor? bias, str after) -> Tensor',
)


@_closed_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, after: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for what is allocated next.

    It gives large blocks back to the system at once, and pays for every page of the
    next one. How large depends on the largest block below 32 MiB that was ever freed.
    Nothing happens where there is no glibc.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """The product of `x` and `weight.mT`, by the faster library; without gradients.

    Args:
        x (Tensor): Shape (..., I).
        weight (Tensor): Shape (O, I), contiguous.

    Returns:
        Tensor: Shape (..., O).
    """
    if x.device.type != 'cpu' or not is_available(x.dtype):
        return F.linear(x, weight)
    some = x.flatten(0, -2)[:ROWS]
    ways = {'PyTorch': lambda: F.linear(some, weight)}
    ways['oneDNN'] = lambda: linear(some, weight)
    shape = (*some.shape, len(weight), x.dtype)
    best = fastest('class scores of pixels', shape, ways)
    return linear(x, weight) if best == 'oneDNN' else F.linear(x, weight)


def inputs_side_by_side(weight: Tensor) -> Tensor:
    """The same weights, in the order of memory that costs oneDNN least.

    It brings weights into an order of its own in every call, 5 to 15 % of which this
    saves, and more in fp32 than in bf16.

    Args:
        weight (Tensor): Shape (O, I).

    Returns:
        Tensor: Shape (O, I), the weights of all outputs side by side for each input.
    """
    return weight.mT.contiguous().mT


def mask_product(embeddings: Tensor, features: Tensor) -> Tensor:
    """Dot products of queries and pixels, those of a pixel side by side in memory.

    Args:
        embeddings (Tensor): Shape (B, K, C).
        features (Tensor): Shape (B, C, H, W), the channels of a pixel side by side.

    Returns:
        Tensor: Shape (B, K, H, W).
    """
    pixels = features.permute(0, 2, 3, 1)
    if len(embeddings) == 1:  # nothing to gather
        return linear(pixels, embeddings[0]).permute(0, 3, 1, 2)
    masks = features.new_empty(*pixels.shape[:3], embeddings.shape[1])
    for out, *pair in zip(masks, pixels, embeddings, strict=True):
        out.copy_(linear(*pair))
    return masks.permute(0, 3, 1, 2)
