"""Rotary position codes of merged tokens.

Rotary codes belong to places in the grid, one table for all images. Once tokens are
merged, every image has tokens of its own at places of their own: the mean place of
their patches. In axial codes (EVA-02, DINOv3) every angle is linear in row and column,
so that two steps of the table give the codes of any place, also between patches. Sines
and cosines determine a step as long as it is below half a turn.
"""

import math

import torch
from timm.layers import RotaryEmbeddingDinoV3
from torch import Tensor, nn

from eomt_mm.errors import UserError


def check_steps(rope: nn.Module | None, grid: tuple[int, int]) -> None:
    """Refuse grids so small that an angle grows by half a turn from patch to patch.

    The fastest angle goes through 2 turns along a side in DINOv3, whatever its number
    of patches, and through as many radians as the pre-trained grid has patches in
    EVA-02 (16: 2.5 turns).

    Args:
        rope (nn.Module, optional): timm's rotary codes of a ViT, if it has any.
        grid (tuple[int, int]): Rows and columns of the patches.

    Raises:
        UserError: If a side of the grid is too short.
    """
    if rope is None:
        return
    if isinstance(rope, RotaryEmbeddingDinoV3):
        reach = (4 * math.pi / (rope.min_period or 1),) * 2
    else:
        reach = rope.ref_feat_shape or grid
    for side, angle in zip(grid, reach, strict=True):
        if 1 < side <= angle / math.pi:
            raise UserError(
                f'token merging with the rotary codes of a grid of {grid[0]} x '
                f'{grid[1]} patches: expected sides of {int(angle / math.pi) + 1} or '
                'more, or no code can be found between two patches. Take larger images '
                '(crop_size and backbone.img_size) or a smaller backbone.patch_size'
            )


def grid_places(grid: tuple[int, int], device=None) -> Tensor:
    """Return row and column of every patch.

    Args:
        grid (tuple[int, int]): Rows and columns.
        device (torch.device, optional): Device of the result.

    Returns:
        Tensor: Shape (N, 2) fp32, in raster order.
    """
    rows, cols = (torch.arange(float(side), device=device) for side in grid)
    return torch.cartesian_prod(rows, cols)


def rotary_at(table: Tensor, grid: tuple[int, int], places: Tensor) -> Tensor:
    """Compute the rotary codes of any places.

    Args:
        table (Tensor): Codes of the patches, shape (N, 2d): d sines, then d cosines.
            From one row or column to the next no angle may grow by pi or more, see
            `check_steps`.
        grid (tuple[int, int]): Rows and columns of the table.
        places (Tensor): Rows and columns, shape (B, n, 2).

    Returns:
        Tensor: Shape (B, 1, n, 2d), the 1 standing for all heads.
    """
    # Runtimes of exported graphs have no sines in fp64, or none at all.
    exact = torch.float32 if torch.compiler.is_exporting() else torch.float64
    sines, cosines = table.to(exact).chunk(2, dim=-1)
    angles = torch.atan2(sines, cosines).unflatten(0, grid)  # (rows, columns, d)
    steps = torch.stack([_step(angles[:, 0]), _step(angles[0])])  # (2, d)
    angles = angles[0, 0] + places.to(exact) @ steps  # (B, n, d)
    codes = torch.cat((angles.sin(), angles.cos()), dim=-1)
    return codes.to(table.dtype)[:, None]


def _step(angles: Tensor) -> Tensor:
    """Return the growth of each angle from place to place; `angles` is (n, d)."""
    count = len(angles) - 1
    if count == 0:
        return torch.zeros_like(angles[0])
    step = _wrapped(angles[1] - angles[0])
    # Any error would be repeated at every place: the last one corrects it.
    rest = _wrapped(angles[-1] - angles[0] - count * step)
    return step + rest / count


def _wrapped(angles: Tensor) -> Tensor:
    """Wrap angles to between -pi and pi."""
    return torch.atan2(angles.sin(), angles.cos())
