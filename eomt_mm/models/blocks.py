"""Blocks of masks: how much of them is worked on at once, and room for results.

What is best depends on the device. On an accelerator each operation costs a launch,
however small its tensors are, so that as many masks as a budget of memory holds go
together. A CPU is fastest with what stays in its cache: some rows of one mask. One
mask at a time also settles ties there, because a CPU rounds a sigmoid up or down by the
place of its number in memory.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from eomt_mm.errors import UserError

BLOCK_BYTES = 2**29  # of an accelerator
# Pixels worked on at once by a CPU: what stays in the cache is twice as fast.
BAND = 2**20
# Of a mask, for each pixel of the network's input and of the result: fp32 logits and,
# next to them, a copy without padding, or bytes that say what is inside.
BYTES_PER_PIXEL = 8

Size = tuple[int, int]


class Block(NamedTuple):
    """What is worked on at once.

    Attributes:
        masks (int): Number of masks that are resized together.
        rows (int): Number of their rows that are compared together.
    """

    masks: int
    rows: int


def block_of(
    device: torch.device,
    input_size: Size,
    ori_shape: Size,
    block_bytes: int | None = None,
) -> Block:
    """Find how many masks are worked on at once.

    Args:
        device (torch.device): Where the masks are.
        input_size (tuple[int, int]): Height and width of the network's input.
        ori_shape (tuple[int, int]): Height and width of the result.
        block_bytes (int, optional): Memory that a block may take; one mask is always
            taken. Defaults to `BLOCK_BYTES`, and on a CPU to one mask.

    Returns:
        Block: At least one mask and one row.
    """
    (rows, cols), (height, width) = ori_shape, input_size
    if block_bytes is None and device.type == 'cpu':
        return Block(1, max(1, BAND // cols))
    mask_bytes = BYTES_PER_PIXEL * (rows * cols + height * width)
    return Block(max(1, (block_bytes or BLOCK_BYTES) // mask_bytes), rows)


def room_for(
    what: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """An empty tensor for a result.

    Args:
        what (str): What it holds, in the plural, for the message.
        shape (tuple[int, ...]): Its shape, height and width last.
        dtype (torch.dtype): Its type.
        device (torch.device): Where it is to be.

    Returns:
        Tensor: Not initialised.

    Raises:
        UserError: If the device does not have so much memory; says how much it is.
    """
    try:
        return torch.empty(shape, dtype=dtype, device=device)
    except RuntimeError as error:  # an accelerator's out of memory is one of them
        size = dtype.itemsize
        for side in shape:
            size *= side
        raise UserError(
            f'{what} of {shape[-1]} x {shape[-2]} pixels take {size / 2**30:,.1f} GiB, '
            f'which {device} cannot give: make the photo smaller, or, of instances, '
            'set test_cfg.encode_masks=True'
        ) from error
