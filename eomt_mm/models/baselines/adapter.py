"""ViT-Adapter: a small CNN beside a plain ViT, and the traffic between them.

arXiv 2205.08534, in the form of its segmentation models and of DINOv2's: prefix
tokens of the ViT stay out of the traffic, and each output scale is given the features
of one stage of the ViT.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from torch import Tensor, nn

from .deformable_attention import DeformableAttention

Grid = tuple[int, int]
STAGES = 4
# Channels of the stem; the coarser scales have 2, 4 and 4 times as many.
STEM_WIDTH = 64


def to_maps(tokens: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """Cut tokens (B, N, C) of several grids into maps (B, C, rows, cols)."""
    parts = tokens.split([rows * cols for rows, cols in grids], dim=1)
    return [
        part.transpose(1, 2).unflatten(2, grid)
        for part, grid in zip(parts, grids, strict=True)
    ]


def to_tokens(maps: Sequence[Tensor]) -> Tensor:
    """Join maps (B, C, rows, cols) to tokens (B, N, C), one map after the other."""
    return torch.cat([x.flatten(2) for x in maps], dim=2).transpose(1, 2)


class SpatialPrior(nn.Module):
    """The CNN: maps of the image at strides 4, 8, 16 and 32.

    Args:
        dims (int): Channels of the maps.
        norm_cfg (dict): Config of the norms.
    """

    def __init__(self, dims: int, norm_cfg: dict) -> None:
        super().__init__()

        def conv(in_dims: int, out_dims: int, stride: int) -> ConvModule:
            return ConvModule(in_dims, out_dims, 3, stride, 1, norm_cfg=norm_cfg)

        widths = [STEM_WIDTH, 2 * STEM_WIDTH, 4 * STEM_WIDTH, 4 * STEM_WIDTH]
        self.stem = nn.Sequential(
            conv(3, STEM_WIDTH, 2),
            conv(STEM_WIDTH, STEM_WIDTH, 1),
            conv(STEM_WIDTH, STEM_WIDTH, 1),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.convs = nn.ModuleList(
            conv(fine, coarse, 2)
            for fine, coarse in zip(widths, widths[1:], strict=False)
        )
        self.projections = nn.ModuleList(nn.Conv2d(width, dims, 1) for width in widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to four maps (B, C, H / stride, W / stride)."""
        maps = [self.stem(images)]
        for conv in self.convs:
            maps.append(conv(maps[-1]))
        return [project(x) for project, x in zip(self.projections, maps, strict=True)]


class Injector(nn.Module):
    """Injection of the CNN into the ViT: patches attend to all scales.

    Starts as the identity, so that the pre-trained ViT is left as it is.
    """

    def __init__(self, dims: int, norm_eps: float, **attention) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dims, norm_eps)
        self.value_norm = nn.LayerNorm(dims, norm_eps)
        self.attn = DeformableAttention(dims, **attention)
        self.gamma = nn.Parameter(torch.zeros(dims))

    def forward(self, patches: Tensor, scales: Tensor) -> Tensor:
        """Map patches (B, N, C) to patches, given the scales (B, M, C)."""
        update = self.attn(self.query_norm(patches), self.value_norm(scales))
        return patches + self.gamma * update


class ConvFFN(nn.Module):
    """Feed-forward layer with a convolution on each grid."""

    def __init__(self, dims: int, hidden: int, grids: Sequence[Grid]) -> None:
        super().__init__()
        self.grids = grids
        self.fc1 = nn.Linear(dims, hidden)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, M, C) to tokens."""
        maps = [self.conv(scale) for scale in to_maps(self.fc1(x), self.grids)]
        return self.fc2(self.act(to_tokens(maps)))


class Extractor(nn.Module):
    """Extraction from the ViT into the CNN: all scales attend to the patches."""

    def __init__(
        self, dims: int, norm_eps: float, ffn_ratio: float, query_grids, **attention
    ) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dims, norm_eps)
        self.value_norm = nn.LayerNorm(dims, norm_eps)
        self.attn = DeformableAttention(dims, query_grids=query_grids, **attention)
        self.ffn_norm = nn.LayerNorm(dims, norm_eps)
        self.ffn = ConvFFN(dims, int(ffn_ratio * dims), query_grids)

    def forward(self, scales: Tensor, patches: Tensor) -> Tensor:
        """Map scales (B, M, C) to scales, given the patches (B, N, C)."""
        update = self.attn(self.query_norm(scales), self.value_norm(patches))
        scales = scales + update
        return scales + self.ffn(self.ffn_norm(scales))


class Adapter(nn.Module):
    """The whole adapter; it sees the ViT as a function of tokens.

    Args:
        dims (int): Channels of the ViT and of all outputs.
        img_size (tuple[int, int]): Height and width of the image, multiples of 32.
        patch_grid (tuple[int, int]): Rows and columns of the patches.
        num_heads (int): Heads of deformable attention.
        num_points (int): Points that a head samples on each grid.
        value_ratio (float): Width of its values as a share of `dims`.
        ffn_ratio (float): Hidden width of the feed-forward layers, likewise.
        norm_cfg (dict): Config of the norms of the CNN and of the outputs.
    """

    def __init__(
        self,
        dims: int,
        img_size: tuple[int, int],
        patch_grid: Grid,
        num_heads: int,
        num_points: int,
        value_ratio: float,
        ffn_ratio: float,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        height, width = img_size
        self.grids = [(height // s, width // s) for s in (8, 16, 32)]
        self.patch_grid = patch_grid
        shared = dict(
            norm_eps=1e-6,
            num_heads=num_heads,
            num_points=num_points,
            value_ratio=value_ratio,
        )
        self.prior = SpatialPrior(dims, norm_cfg)
        self.level_embed = nn.Parameter(torch.randn(len(self.grids), dims))
        self.injectors = nn.ModuleList(
            Injector(dims, query_grids=[patch_grid], value_grids=self.grids, **shared)
            for _ in range(STAGES)
        )
        # The last stage is read three times.
        self.extractors = nn.ModuleList(
            nn.ModuleList(
                Extractor(
                    dims,
                    ffn_ratio=ffn_ratio,
                    query_grids=self.grids,
                    value_grids=[patch_grid],
                    **shared,
                )
                for _ in range(times)
            )
            for times in (1, 1, 1, 3)
        )
        self.upscale = nn.ConvTranspose2d(dims, dims, kernel_size=2, stride=2)
        self.norms = nn.ModuleList(
            build_norm_layer(norm_cfg, dims)[1] for _ in range(STAGES)
        )
        self.apply(_initialise)

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        run_stage: Callable[[int, Tensor], Tensor],
    ) -> tuple[Tensor, ...]:
        """Run the ViT with the adapter.

        Args:
            images (Tensor): Normalised images, shape (B, 3, H, W).
            tokens (Tensor): Input of the first block of the ViT, shape
                (B, prefix + N, C).
            run_stage (Callable): Maps the number of a quarter of the blocks and
                tokens to tokens.

        Returns:
            tuple[Tensor, ...]: Maps (B, C, H / stride, W / stride) at strides 4, 8,
            16 and 32.
        """
        finest, *others = self.prior(images)
        scales = torch.cat(
            [
                to_tokens([x]) + embed
                for x, embed in zip(others, self.level_embed, strict=True)
            ],
            dim=1,
        )
        prefix = tokens.shape[1] - self.patch_grid[0] * self.patch_grid[1]
        stages = []
        for i in range(STAGES):
            patches = self.injectors[i](tokens[:, prefix:], scales)
            tokens = run_stage(i, torch.cat((tokens[:, :prefix], patches), dim=1))
            patches = tokens[:, prefix:]
            for extractor in self.extractors[i]:
                scales = extractor(scales, patches)
            stages += to_maps(patches, [self.patch_grid])

        maps = to_maps(scales, self.grids)
        maps = [finest + self.upscale(maps[0]), *maps]
        return tuple(
            norm(x + F.interpolate(stage, x.shape[2:], mode='bilinear'))
            for norm, x, stage in zip(self.norms, maps, stages, strict=True)
        )


def _initialise(module: nn.Module) -> None:
    """Set the published start; the attention of mmcv has its own."""
    if isinstance(module, DeformableAttention):
        module.attn.init_weights()
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        # torch's own fan_out ignores groups.
        fan_out = math.prod(module.kernel_size) * module.out_channels / module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
