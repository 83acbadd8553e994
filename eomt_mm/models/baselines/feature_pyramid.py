"""A feature pyramid from the single map of a plain ViT.

It replaces ViT-Adapter in step (1) of the ladder (arXiv 2503.19108, Sec. 3.2), after
ViTDet.
"""

import math
from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from ..backbone_sizes import FollowsBackbone
from ..mask_head import ScaleBlock


@MODELS.register_module()
class FeaturePyramid(FollowsBackbone, BaseModule):
    """Scales one map up and down, to every resolution independently.

    Each doubling or halving is a `ScaleBlock`; the resolution of the ViT itself is
    passed on as it is.

    Args:
        embed_dims (int): Channels of the map and of all outputs. The models of this
            package take them from the backbone, like `patch_size`.
        strides (Sequence[int]): Strides of the outputs in pixels, fine to coarse.
            Step (3) has (4, 16). Defaults to (4, 8, 16, 32).
        patch_size (int): Stride of the map in pixels. Defaults to 16.
        init_cfg (dict, optional): MMEngine's initialisation config.

    Raises:
        UserError: If a stride is not a power of two times the patch size.
    """

    def __init__(
        self,
        embed_dims: int,
        strides: Sequence[int] = (4, 8, 16, 32),
        patch_size: int = 16,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.scales = nn.ModuleList()
        for stride in strides:
            doublings = math.log2(patch_size / stride)
            if not doublings.is_integer():
                raise UserError(
                    f'stride {stride} of the feature pyramid cannot be reached from '
                    f'patches of {patch_size} pixels by doubling or halving: use '
                    'strides such as (4, 8, 16, 32) with patch_size 8, 16 or 32'
                )
            blocks = (
                ScaleBlock(embed_dims, down=doublings < 0)
                for _ in range(abs(int(doublings)))
            )
            self.scales.append(nn.Sequential(*blocks))

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Build the pyramid.

        Args:
            maps (tuple[Tensor, ...]): Output of `PlainViT`, one map (B, C, h, w).

        Returns:
            tuple[Tensor, ...]: One map (B, C, H / stride, W / stride) per stride.
        """
        return tuple(scale(maps[-1]) for scale in self.scales)
