"""Masked self-attention: a full N x N mask against split rows, forward and backward.

- `full`: one bool mask (B, 1, N, N), expanded over heads, as the reference has it;
- `split`: only the query rows carry a mask, as this package does;
- `free`: no mask at all, the floor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from eomt_mm.models.masked_attention import split_attention

from .measure import Work

VARIANTS = ('full', 'split', 'free')
HEADS = {'S': 6, 'B': 12, 'L': 16, 'g': 24, 'T': 4}  # by the size of the model
HEAD_DIM = 64
PATCH = 16
PREFIX = 5  # CLS and four registers


def prepare(
    variant: str,
    size: str,
    image_size: int,
    batch: int,
    queries: int,
    device: torch.device,
) -> Work:
    """Make queries, keys, values and a mask, and a function that attends once.

    Args:
        variant (str): One of `VARIANTS`.
        size (str): Size of the model, which determines the heads.
        image_size (int): Side of the image in pixels.
        batch (int): Images at a time.
        queries (int): Number of queries.
        device (torch.device): Device of the computation.

    Returns:
        Callable: Returns the output and the gradients of q, k and v.
    """
    torch.manual_seed(0)
    patches = (image_size // PATCH) ** 2
    shape = (batch, HEADS[size], queries + PREFIX + patches, HEAD_DIM)
    qkv = [torch.randn(shape, device=device, requires_grad=True) for _ in range(3)]
    mask = torch.rand(batch, queries, patches, device=device) > 0.5
    for tensor in qkv:
        tensor.grad = torch.zeros_like(tensor)

    def work() -> tuple[Tensor, ...]:
        for tensor in qkv:
            tensor.grad.zero_()
        out = _attend(variant, *qkv, mask)
        out.sum().backward()
        return out.detach(), *(tensor.grad.clone() for tensor in qkv)

    return work


def _attend(variant: str, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    if variant == 'split':
        return split_attention(q, k, v, mask)
    if variant == 'free':
        return F.scaled_dot_product_attention(q, k, v)
    batch, heads, tokens, _ = q.shape
    queries, patches = mask.shape[1:]
    full = torch.ones(batch, tokens, tokens, dtype=torch.bool, device=q.device)
    full[:, :queries, -patches:] = mask
    full = full[:, None].expand(-1, heads, -1, -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=full)
