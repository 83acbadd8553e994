"""What the arithmetic would allow: operations of a network, rate of the device."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eomt_mm.models.cpu import onednn

from .measure import timed

# Side of the matrices; large enough to fill the device, small enough not to bore.
SIDES = {'cuda': 8192, 'cpu': 2048}
TRIES = 4


def multiplications(network: nn.Module, images: Tensor) -> int:
    """Multiply-accumulate operations of one forward pass, as the paper counts them.

    Those of matrix products, convolutions and attention; the paper calls a thousand
    million of them a GFLOP (arXiv 2503.19108, Table 1).

    Args:
        network (nn.Module): A copy on the meta device: nothing is computed.
        images (Tensor): Its input, on the meta device.

    Returns:
        int: Of the whole batch.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    return counter.get_total_flops() // 2


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Multiply-accumulate operations per second of a large matrix product.

    Args:
        dtype (torch.dtype): Of the matrices.
        device (torch.device): Where.

    Returns:
        float: Of the best of a few, and of the best library: a limit that the device
        does reach.
    """
    side = SIDES[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    ways = (lambda: a @ b, lambda: onednn.product(a, b))
    seconds = [timed(way, device)[0] for way in ways for _ in range(TRIES)]
    return side**3 / min(seconds)
