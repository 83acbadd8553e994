"""Half precision that a graph can carry: casts inside layers, where autocast has them.

Weights and products are fp16. What decides results is fp32: the residual stream, norms,
attention scores with their softmax, rotary codes, activations, class logits. fp16
scores overflow or lose what tells tokens apart, and engines that fuse them give maps of
one class.
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
            is_half = weight is not None and weight.dtype == torch.float16
            if is_half or isinstance(child, MaskProduct):
                child.register_forward_pre_hook(_to_half)
                child.register_forward_hook(_to_full)
            elif isinstance(child, MaskedAttention):
                child.attend = attend
                if isinstance(child, RotarySplitAttention):
                    child.__class__ = HalfRotaryAttention


def _to_half(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.half() for x in inputs)


# Between products all is fp32: exporters stumble over sums of two types.
def _to_full(_: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.float()


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
        Tensor: Shape (B, heads, T, d) fp32.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return (scores.softmax(-1).half() @ v.half()).float()


class HalfRotaryAttention(RotarySplitAttention):
    """Rotary attention whose joint product casts its input, as a layer's would."""

    def _qkv(self, x: Tensor, bias: Tensor | None) -> Tensor:
        bias = None if bias is None else bias.half()
        return super()._qkv(x.half(), bias).float()
