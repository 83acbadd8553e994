"""A substitute for the pixel decoder: steps (2) and (3) of the ladder."""

from mmengine.model import BaseModule
from torch import Tensor, nn

from eomt_mm.registry import MODELS


@MODELS.register_module()
class LinearPixelDecoder(BaseModule):
    """Projects every scale to the width of the Transformer decoder, and no more.

    Takes the place of MMDet's `MSDeformAttnPixelDecoder` in a `Mask2FormerHead`
    (arXiv 2503.19108, Sec. 3.2: the features go directly to the decoder).

    Args:
        in_channels (list[int]): Channels of the maps, fine to coarse. The first is
            for the masks alone.
        feat_channels (int): Channels of the decoder. Defaults to 256.
        out_channels (int): Channels of the mask features. Defaults to 256.
        encoder (dict, optional): Not used; MMDet's head hands it over.
        init_cfg (dict, optional): MMEngine's initialisation config.
    """

    def __init__(
        self,
        in_channels: list[int],
        feat_channels: int = 256,
        out_channels: int = 256,
        encoder: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        finest, *others = in_channels
        self.mask_feature = nn.Conv2d(finest, out_channels, 1)
        self.projections = nn.ModuleList(
            nn.Conv2d(channels, feat_channels, 1) for channels in others
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """Project.

        Args:
            maps (tuple[Tensor, ...]): Shape (B, C, h, w) each, fine to coarse.

        Returns:
            tuple[Tensor, list[Tensor]]: The mask features, from the finest map, and
            the maps that the queries attend to, coarse to fine.
        """
        finest, *others = maps
        memories = [
            project(x) for project, x in zip(self.projections, others, strict=True)
        ]
        return self.mask_feature(finest), memories[::-1]
