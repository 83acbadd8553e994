"""Inference on a CPU: products by oneDNN, attention in pieces that fit the cache.

PyTorch leaves fp32 matrix products to Intel's MKL, which uses only half of what many a
processor of AMD can do. It ships oneDNN as well, and uses it for convolutions and for
bf16: the functions here ask it directly. They have no gradients.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Attention weights that are computed at once by each thread: 2 MiB in fp32, and more
# where that were fewer rows than a product needs to be fast.
WEIGHTS_AT_ONCE = 2**19
LEAST_ROWS = 192


def is_available() -> bool:
    """Whether this PyTorch has what is needed here."""
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, '_linear_pointwise'
    )


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False
) -> Tensor:
    """A linear layer, with GELU behind it if asked for.

    Args:
        x (Tensor): Shape (..., I), fp32 or bf16.
        weight (Tensor): Shape (O, I), of the same dtype.
        bias (Tensor, optional): Shape (O,).
        gelu (bool): Defaults to False.

    Returns:
        Tensor: Shape (..., O).
    """
    if torch.compiler.is_compiling():
        return _closed_linear(x, weight, bias, gelu)
    return _linear(x, weight, bias, gelu)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    after = ('gelu', [], 'none') if gelu else ('none', [], '')
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *after)


# The compiler takes the operator apart, and then wants weights that are constants.
_closed_linear = torch.library.custom_op(
    'eomt_mm::linear',
    _linear,
    mutates_args=(),
    schema='(Tensor x, Tensor weight, Tensor? bias, bool gelu) -> Tensor',
)


@_closed_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def product(x: Tensor, weight: Tensor) -> Tensor:
    """The product of `x` and `weight.mT`, by the fastest library; without gradients.

    Args:
        x (Tensor): Shape (..., I).
        weight (Tensor): Shape (O, I), contiguous.

    Returns:
        Tensor: Shape (..., O).
    """
    if x.device.type == 'cpu' and is_available():
        return linear(x, weight)
    return F.linear(x, weight)


class OneDnnLinear(nn.Linear):
    """A linear layer for inference, to take the place of an existing one's class.

    Attributes:
        gelu (bool): Whether GELU follows.
    """

    gelu = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O), in the dtype of the weights."""
        return linear(x.to(self.weight.dtype), self.weight, self.bias, self.gelu)


@torch.library.custom_op('eomt_mm::attention_in_pieces', mutates_args=())
def attention_in_pieces(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as two matrix products, one head and some rows at a time.

    The weights of so few rows stay in the cache between the products. PyTorch's own
    kernel for CPUs relies on MKL, and computes bf16 in fp32. Of bf16 the products of q
    and k and the softmax are fp32 here too: attention that is sharp, or whose keys have
    much in common, would magnify their rounding.

    Args:
        q (Tensor): Shape (B, heads, T, d), fp32 or bf16.
        k (Tensor): The same.
        v (Tensor): The same.

    Returns:
        Tensor: Shape (B, heads, T, d).
    """
    batch, heads, tokens, dims = q.shape
    rows = torch.get_num_threads() * max(LEAST_ROWS, WEIGHTS_AT_ONCE // tokens)
    out = q.new_empty(batch, tokens, heads, dims).transpose(1, 2)
    q = q.float() * dims**-0.5
    for image in range(batch):
        for head in range(heads):
            # As weights of linear layers, (T, d) and (d, T).
            keys = k[image, head].float().contiguous()
            values = v[image, head].mT.contiguous()
            for start in range(0, tokens, rows):
                part = slice(start, start + rows)
                weights = _linear(q[image, head, part], keys, None, False)
                weights = weights.softmax(-1).to(values.dtype)
                out[image, head, part] = _linear(weights, values, None, False)
    return out


@attention_in_pieces.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(q.shape).transpose(1, 2).contiguous().transpose(1, 2)


def mask_product(embeddings: Tensor, features: Tensor) -> Tensor:
    """Dot products of queries and pixels, those of a pixel side by side in memory.

    Args:
        embeddings (Tensor): Shape (B, K, C).
        features (Tensor): Shape (B, C, H, W), the channels of a pixel side by side.

    Returns:
        Tensor: Shape (B, K, H, W).
    """
    pixels = features.permute(0, 2, 3, 1)
    masks = [linear(*pair) for pair in zip(pixels, embeddings, strict=True)]
    return torch.stack(masks).permute(0, 3, 1, 2)
