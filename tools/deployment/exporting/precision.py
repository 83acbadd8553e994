"""Half precision that a graph can carry: casts inside layers, where autocast has them.

Weights and products are fp16. What decides results is fp32: the residual stream, norms,
attention scores with their softmax, rotary codes, class logits. fp16 scores overflow or
lose what tells tokens apart, and engines that fuse them give maps of one class.
"""

import torch
from torch import Tensor, nn

from eomt_mm.errors import UserError
from eomt_mm.models.mask_head import MaskProduct
from eomt_mm.models.masked_attention import MaskedAttention, RotarySplitAttention
from eomt_mm.models.network import cast_weights

from .graph import RawNetwork


def halve(network: RawNetwork) -> None:
    """Bring a network to fp16, in place.

    Args:
        network (RawNetwork): In fp32.

    Raises:
        UserError: Token merging with proportional attention, whose scores cannot be
            kept in fp32.
    """
    method = getattr(network.backbone, 'token_merging', None)
    if method is not None and method.proportional_attention:
        raise UserError(
            '--dtype fp16 with token_merging.proportional_attention: its attention '
            'scores would be fp16; take --dtype fp32, or proportional_attention=False'
        )
    for module in (network.backbone, network.head):
        cast_weights(module, torch.float16)
        for child in module.modules():
            weight = getattr(child, 'weight', None)
            if isinstance(child, nn.LayerNorm):
                child.register_forward_pre_hook(_cast_to_full)
            elif weight is not None and weight.dtype == torch.float16:
                child.register_forward_pre_hook(_cast_to_half)
            elif isinstance(child, MaskProduct):
                child.register_forward_pre_hook(_cast_to_half)
            elif isinstance(child, MaskedAttention):
                child.attend = attend
            if isinstance(child, RotarySplitAttention):
                child.__class__ = HalfRotaryAttention


def _cast_to_half(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.half() for x in inputs)


def _cast_to_full(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.float() for x in inputs)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention with scores in fp32, in the place of `masked_attention.attend`.

    Args:
        q (Tensor): Shape (B, heads, T, d).
        k (Tensor): Shape (B, heads, T, d).
        v (Tensor): Shape (B, heads, T, d).
        mask (None): Exported networks have none.
        dropout_p (float): Nor dropout.

    Returns:
        Tensor: Shape (B, heads, T, d), in the dtype of `v`.
    """
    scores = (q.float() * q.shape[-1] ** -0.5) @ k.float().mT
    return scores.softmax(-1).to(v.dtype) @ v


class HalfRotaryAttention(RotarySplitAttention):
    """Rotary attention whose joint product casts its input, as a layer's would."""

    def _qkv(self, x: Tensor, bias: Tensor | None) -> Tensor:
        weight = self.qkv.weight
        bias = None if bias is None else bias.to(weight.dtype)
        return super()._qkv(x.to(weight.dtype), bias)
