"""Layers that compute by oneDNN, in the place of a network's own on a CPU.

Only the class of a layer is exchanged, so that parameters, their names and copies of
the network stay what they were.
"""

from timm.layers import Mlp
from torch import Tensor, nn

from ..mask_head import MaskProduct
from ..masked_attention import MaskedAttention, RotarySplitAttention
from . import onednn
from .attention import attend


class OneDnnLinear(nn.Linear):
    """A linear layer for inference, to take the place of an existing one's class.

    Attributes:
        gelu (bool): Whether GELU follows.
    """

    gelu = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O), in the dtype of the weights."""
        after = 'gelu' if self.gelu else 'none'
        return onednn.linear(x, self.weight, self.bias, after)


class OneDnnRotaryAttention(RotarySplitAttention):
    """Rotary attention whose keys, queries and values come from one oneDNN product."""

    def _qkv(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return onednn.linear(x, self.qkv.weight, bias)


class OneDnnMaskProduct(MaskProduct):
    """Dot products of queries and pixels by oneDNN."""

    def forward(self, embeddings: Tensor, features: Tensor) -> Tensor:
        """See `MaskProduct.forward`; the pixels lie side by side in memory."""
        return onednn.mask_product(embeddings, features)


def use_linear(module: nn.Module) -> None:
    """Let linear layers compute by oneDNN, and GELU along with them.

    Args:
        module (nn.Module): For inference only; changed in place.
    """
    for name, child in module.named_modules():
        # Adapters and quantisation have subclasses, with a forward pass of their own.
        if child.__class__ is nn.Linear and name != 'class_head':
            child.__class__ = OneDnnLinear
            child.weight.data = onednn.inputs_side_by_side(child.weight.data)
        elif isinstance(child, RotarySplitAttention):
            child.__class__ = OneDnnRotaryAttention
    for child in module.modules():
        if not isinstance(child, Mlp) or not isinstance(child.fc1, OneDnnLinear):
            continue
        if is_exact_gelu(child.act) and not child.fc1._forward_hooks:
            child.fc1.gelu, child.act = True, nn.Identity()


def use_attention(module: nn.Module) -> None:
    """Let attention be computed in pieces, for inference only; changed in place."""
    for child in module.modules():
        if isinstance(child, MaskedAttention):
            child.attend = attend


def use_mask_product(module: nn.Module) -> None:
    """Let masks be products of oneDNN, for inference only; changed in place."""
    for child in module.modules():
        if isinstance(child, MaskProduct):
            child.__class__ = OneDnnMaskProduct


def is_exact_gelu(layer: nn.Module) -> bool:
    """Whether a layer is the GELU that oneDNN computes along with a product."""
    return isinstance(layer, nn.GELU) and layer.approximate == 'none'
