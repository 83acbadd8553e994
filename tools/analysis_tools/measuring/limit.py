"""The limit of the arithmetic: the rate of the device."""

import torch

from eomt_mm.models.cpu import onednn

from .measure import timed

# Side of the matrices; large enough to fill the device, small enough not to bore.
SIDES = {'cuda': 8192, 'cpu': 2048}
TRIES = 4


def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Measure the multiply-accumulates per second of a large matrix product.

    Args:
        dtype (torch.dtype): Type of the matrices.
        device (torch.device): Device of the computation.

    Returns:
        float: Rate of the best of a few products by the best library, a limit that the
        device does reach.
    """
    side = SIDES[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    ways = (lambda: a @ b, lambda: onednn.product(a, b))
    seconds = [timed(way, device)[0] for way in ways for _ in range(TRIES)]
    return side**3 / min(seconds)
