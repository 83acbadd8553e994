"""Self-attention in which a merged token weighs as much as its parts.

Plain attention counts a token once, however many patches it stands for. Proportional
attention (ToMe, arXiv 2210.09461, Eq. 1) adds log(size) of every key to its logits:
the same output as with each merged token repeated once per patch.

A bias would be an attention mask and rule out the flash kernel. It becomes part of
the dot product instead: q' = [q, 1], k' = [k, log(size) sqrt(d)], v' = [v, 0], with
the scale of d channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..masked_attention import MaskedAttention

# Kernels want a multiple of 8 channels, so that d grows by 8 and not by 1.
EXTRA_CHANNELS = 8


def proportional_attention(q: Tensor, k: Tensor, v: Tensor, sizes: Tensor) -> Tensor:
    """Attend to keys that count as often as their sizes say.

    Args:
        q (Tensor): Shape (B, heads, T, d).
        k (Tensor): Shape (B, heads, T, d).
        v (Tensor): Shape (B, heads, T, d).
        sizes (Tensor): Shape (B, T) fp32, at least 1.

    Returns:
        Tensor: Shape (B, heads, T, d).
    """
    dims = q.shape[-1]
    bias = sizes.log() * dims**0.5
    # In half precision one channel rounds the bias; the next one holds the remainder.
    coarse = bias.to(k.dtype)
    parts = torch.stack((coarse, (bias - coarse.to(bias.dtype)).to(k.dtype)), dim=-1)
    pads = F.pad(parts, (0, EXTRA_CHANNELS - 2))[:, None].expand(-1, k.shape[1], -1, -1)
    ones = torch.zeros_like(pads)
    ones[..., :2] = 1
    out = F.scaled_dot_product_attention(
        torch.cat((q, ones), dim=-1),
        torch.cat((k, pads), dim=-1),
        F.pad(v, (0, EXTRA_CHANNELS)),
        scale=dims**-0.5,
    )
    return out[..., :dims]


def attend_by_size(
    attn: MaskedAttention,
    x: Tensor,
    rope: Tensor | None = None,
    sizes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the self-attention of a block at inference; return its keys as well.

    Args:
        attn (MaskedAttention): The layer.
        x (Tensor): Normalised tokens, shape (B, T, C).
        rope (Tensor, optional): Rotary codes, see `RotarySplitAttention`.
        sizes (Tensor, optional): Patches that each token stands for, shape (B, T).

    Returns:
        tuple[Tensor, Tensor]: The layer's output (B, T, C), and its keys
        (B, heads, T, d) before they are rotated.
    """
    q, keys, v = attn.project(x)
    k = keys
    if rope is not None:
        q, k = (attn.rotate(t, rope).type_as(v) for t in (q, k))
    if sizes is None:
        out = attn.attend(q, k, v)
    else:
        out = proportional_attention(q, k, v, sizes)
    return attn.merge_heads(out), keys
