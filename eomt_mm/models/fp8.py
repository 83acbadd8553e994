"""Linear layers of the blocks in 8-bit floating point (E4M3), for inference on a GPU.

A card that has such products makes them in half the time of bf16. Each output channel
of the weights and each token has a scale of its own, which brings its largest number to
448, the largest of E4M3; sums are kept in more bits. Attention, norms, the residual
stream and the head stay what they are in bf16.

Where the device has no such product, the same numbers are multiplied in fp32. That
checks the arithmetic, and gains nothing: `check_device` refuses it to users.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from eomt_mm.errors import UserError

from .masked_attention import RotarySplitAttention
from .precision import no_autocast

DTYPE = torch.float8_e4m3fn
LARGEST = torch.finfo(DTYPE).max
# Rows and columns that the cards' products come in.
MULTIPLE = 16
CAPABILITY = (8, 9)  # Ada; Hopper is 9.0


def check_device(device: torch.device) -> None:
    """Refuse a device without products of E4M3.

    Raises:
        UserError: If it is not an NVIDIA GPU of compute capability 8.9 or more.
    """
    if has_products(device):
        return
    found = 'a CPU'
    if device.type == 'cuda':
        major, minor = torch.cuda.get_device_capability(device)
        found = f'{torch.cuda.get_device_name(device)}, compute capability '
        found += f'{major}.{minor}'
    raise UserError(
        'fp8 needs an NVIDIA GPU of compute capability 8.9 or more (Ada, Hopper, '
        f'Blackwell), and this is {found}: take bf16'
    )


def has_products(device: torch.device) -> bool:
    """Whether a device multiplies E4M3 by itself."""
    is_nvidia = device.type == 'cuda' and torch.version.hip is None
    return is_nvidia and torch.cuda.get_device_capability(device) >= CAPABILITY


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the largest number of each row to the largest of E4M3, and round.

    Args:
        x (Tensor): Shape (..., N).

    Returns:
        tuple[Tensor, Tensor]: E4M3 of the same shape, and scales (..., 1) in fp32: the
        product of both is x but for rounding.
    """
    x = x.float()
    # A row of zeros has any scale.
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / LARGEST
    return (x / scale).to(DTYPE), scale


def linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer of E4M3 numbers.

    Args:
        x (Tensor): Shape (..., I), of any floating dtype.
        weight (Tensor): Shape (O, I), E4M3.
        scale (Tensor): Shape (O, 1), fp32, see `quantize`.
        bias (Tensor, optional): Shape (O,).

    Returns:
        Tensor: Shape (..., O), bf16.
    """
    bias = None if bias is None else bias.bfloat16()
    rows, scales = quantize(x.flatten(0, -2))
    if has_products(x.device):
        out = torch._scaled_mm(
            rows,
            weight.mT,
            scales,
            scale.mT,
            bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
    else:
        with no_autocast(x.device):
            out = (rows.float() * scales) @ (weight.float() * scale).mT
            out = (out if bias is None else out + bias).bfloat16()
    return out.unflatten(0, x.shape[:-1])


class Fp8Linear(nn.Linear):
    """A linear layer for inference, to take the place of an existing one's class.

    Parameters and their names stay, so that a model can be saved and copied.
    """

    def quantize(self) -> None:
        """Keep the weights in E4M3, besides."""
        weight, scale = quantize(self.weight.data)
        self.register_buffer('fp8_weight', weight, persistent=False)
        self.register_buffer('fp8_scale', scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O) in bf16."""
        return linear(x, self.fp8_weight, self.fp8_scale, self.bias)


class Fp8RotaryAttention(RotarySplitAttention):
    """Rotary attention whose queries, keys and values come from one E4M3 product."""

    def _qkv(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, self.qkv.fp8_weight, self.qkv.fp8_scale, bias)


def use_fp8(blocks: Iterable[nn.Module]) -> None:
    """Let the linear layers of blocks compute in E4M3.

    Args:
        blocks (Iterable[nn.Module]): For inference only, with weights in fp32; changed
            in place.
    """
    for child in [module for block in blocks for module in block.modules()]:
        # Adapters and quantisation have subclasses, with a forward pass of their own.
        if child.__class__ is nn.Linear and _fits(child):
            child.__class__ = Fp8Linear
            child.quantize()
    for child in [module for block in blocks for module in block.modules()]:
        joined = isinstance(child, RotarySplitAttention) and child.qkv
        if isinstance(joined, Fp8Linear):
            child.__class__ = Fp8RotaryAttention


def _fits(layer: nn.Linear) -> bool:
    return not (layer.in_features % MULTIPLE or layer.out_features % MULTIPLE)
