"""Rotary position codes of merged tokens.

Rotary codes belong to places in the grid, one table for all images. Once tokens are
merged, every image has tokens of its own at places of their own: the mean place of
their patches. In axial codes (EVA-02, DINOv3) every angle is linear in row and column,
so that two steps of the table say what any place gets, between the patches as well.
"""

import torch
from torch import Tensor


def grid_places(grid: tuple[int, int], device=None) -> Tensor:
    """Row and column of every patch.

    Args:
        grid (tuple[int, int]): Rows and columns.
        device (torch.device, optional): Where to make it.

    Returns:
        Tensor: Shape (N, 2) fp32, in raster order.
    """
    rows, cols = (torch.arange(float(side), device=device) for side in grid)
    return torch.cartesian_prod(rows, cols)


def rotary_at(table: Tensor, grid: tuple[int, int], places: Tensor) -> Tensor:
    """Rotary codes of any places.

    Args:
        table (Tensor): Codes of the patches, shape (N, 2d): d sines, then d cosines.
            From one row or column to the next no angle may grow by pi or more, as is
            the case for the codes of EVA-02 and DINOv3.
        grid (tuple[int, int]): Rows and columns of the table.
        places (Tensor): Rows and columns, shape (B, n, 2).

    Returns:
        Tensor: Shape (B, 1, n, 2d), the 1 standing for all heads.
    """
    sines, cosines = table.double().chunk(2, dim=-1)
    angles = torch.atan2(sines, cosines).unflatten(0, grid)  # (rows, columns, d)
    steps = torch.stack([_step(angles[:, 0]), _step(angles[0])])  # (2, d)
    angles = angles[0, 0] + places.double() @ steps  # (B, n, d)
    codes = torch.cat((angles.sin(), angles.cos()), dim=-1)
    return codes.to(table.dtype)[:, None]


def _step(angles: Tensor) -> Tensor:
    """What each angle (n, d) grows by from one place to the next, n of them in line."""
    count = len(angles) - 1
    if count == 0:
        return torch.zeros_like(angles[0])
    step = _wrapped(angles[1] - angles[0])
    # Any error would be repeated at every place: the last one corrects it.
    rest = _wrapped(angles[-1] - angles[0] - count * step)
    return step + rest / count


def _wrapped(angles: Tensor) -> Tensor:
    """The same angles between -pi and pi."""
    return torch.atan2(angles.sin(), angles.cos())
