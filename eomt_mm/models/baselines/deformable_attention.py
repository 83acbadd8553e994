"""Deformable attention between token sequences that lie on grids."""

from collections.abc import Sequence

import torch
from mmcv.ops import MultiScaleDeformableAttention, get_compiling_cuda_version
from mmcv.ops import multi_scale_deform_attn as mmcv_module
from torch import Tensor, nn

from ..precision import no_autocast


def use_pytorch_where_no_kernel() -> None:
    """Let mmcv's deformable attention run on a GPU without a compiled kernel.

    mmcv has the same computation in PyTorch, for the CPU. On a GPU it always calls
    its kernel, and fails if it was compiled without CUDA.
    """
    if get_compiling_cuda_version() == 'not available':
        mmcv_module.IS_CUDA_AVAILABLE = False


use_pytorch_where_no_kernel()


def cell_centres(grids: Sequence[tuple[int, int]]) -> Tensor:
    """Return the centres of the cells of grids, one grid after the other.

    Args:
        grids (Sequence[tuple[int, int]]): Rows and columns.

    Returns:
        Tensor: Shape (cells, 2) in [0, 1], x before y.
    """
    centres = []
    for rows, cols in grids:
        y = (torch.arange(rows) + 0.5) / rows
        x = (torch.arange(cols) + 0.5) / cols
        centres.append(torch.cartesian_prod(y, x).flip(1))
    return torch.cat(centres)


class DeformableAttention(nn.Module):
    """mmcv's deformable attention, from the tokens of some grids to those of others.

    Every query samples a few points around its own place, on each grid.

    Args:
        dims (int): Channels of queries and values.
        num_heads (int): Number of heads.
        query_grids (Sequence[tuple[int, int]]): Rows and columns of the grids on
            which the queries lie.
        value_grids (Sequence[tuple[int, int]]): Grids of the values.
        num_points (int): Points sampled by a head on each grid.
        value_ratio (float): Width of the values as a share of `dims`.
    """

    def __init__(
        self,
        dims: int,
        num_heads: int,
        query_grids: Sequence[tuple[int, int]],
        value_grids: Sequence[tuple[int, int]],
        num_points: int,
        value_ratio: float,
    ) -> None:
        super().__init__()
        self.attn = MultiScaleDeformableAttention(
            dims,
            num_heads,
            num_levels=len(value_grids),
            num_points=num_points,
            dropout=0.0,
            batch_first=True,
            value_proj_ratio=value_ratio,
        )
        shapes = torch.tensor(value_grids)  # (levels, 2)
        sizes = shapes.prod(1)
        # One place for each query, the same for all images and on all grids.
        places = cell_centres(query_grids)[None, :, None]  # (1, queries, 1, 2)
        for name, value in (
            ('places', places),
            ('shapes', shapes),
            ('starts', sizes.cumsum(0) - sizes),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, queries: Tensor, values: Tensor) -> Tensor:
        """Attend; there is no residual connection.

        Args:
            queries (Tensor): Shape (B, tokens of the query grids, C).
            values (Tensor): Shape (B, tokens of the value grids, C).

        Returns:
            Tensor: Shape of the queries.
        """
        # Sampling locations need more than half precision, and the kernel knows no
        # bfloat16.
        dtype = self.attn.value_proj.weight.dtype
        with no_autocast(queries.device):
            return self.attn(
                queries.to(dtype),
                value=values.to(dtype),
                identity=queries.new_zeros(1, dtype=dtype),
                reference_points=self.places.to(dtype),
                spatial_shapes=self.shapes,
                level_start_index=self.starts,
            )
