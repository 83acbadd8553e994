"""The backbone of step (0): the same plain ViT with ViT-Adapter."""

from torch import Tensor

from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from ..plain_vit import PlainViT
from .adapter import STAGES, Adapter


@MODELS.register_module()
class ViTAdapter(PlainViT):
    """A plain ViT with an adapter.

    Parameter names of the ViT are timm's; those of the adapter begin with `adapter.`
    and count as new ones: full learning rate, warmed up with the head.

    The final norm of the ViT is not used. It stays, frozen, so that the ViT is the same
    in all steps of the ladder.

    Args:
        arch (str): Name of a timm model, such as 'vit_large_patch14_reg4_dinov2'.
        img_size (int | tuple[int, int]): Height and width of the input in pixels,
            multiples of 32.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        pretrained (bool | str): See `PlainViT`. Defaults to True.
        num_heads (int, optional): Heads of deformable attention. Defaults to those of
            the ViT.
        num_points (int): Points that a head samples on each grid. Defaults to 4.
        value_ratio (float): Width of the values of deformable attention as a share of
            the channels. Defaults to 0.5.
        ffn_ratio (float): Hidden width of the adapter's feed-forward layers, likewise.
            Defaults to 0.25.
        norm_cfg (dict, optional): Config of the norms of the CNN. Defaults to SyncBN,
            which the Runner replaces by BN on a single device.
        timm_args (dict, optional): Further arguments of the timm model.
        init_cfg (dict, optional): MMEngine's initialisation config.

    Raises:
        UserError: If the image is not a multiple of 32, or the depth not one of 4.
    """

    def __init__(
        self,
        arch: str,
        img_size: int | tuple[int, int],
        patch_size: int = 16,
        pretrained: bool | str = True,
        num_heads: int | None = None,
        num_points: int = 4,
        value_ratio: float = 0.5,
        ffn_ratio: float = 0.25,
        norm_cfg: dict | None = None,
        timm_args: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            arch,
            img_size,
            patch_size,
            pretrained=pretrained,
            timm_args=timm_args,
            init_cfg=init_cfg,
        )
        if any(side % 32 for side in self.img_size):
            raise UserError(
                f'image size {self.img_size[0]} x {self.img_size[1]} is not a multiple '
                'of 32, the coarsest scale of ViT-Adapter: set crop_size and '
                'backbone.img_size to one'
            )
        if self.depth % STAGES:
            raise UserError(
                f'{arch} has {self.depth} blocks: ViT-Adapter needs a multiple of '
                f'{STAGES}'
            )
        self.norm.requires_grad_(False)
        self.adapter = Adapter(
            self.embed_dims,
            self.img_size,
            self.grid,
            num_heads=num_heads or self.blocks[0].attn.num_heads,
            num_points=num_points,
            value_ratio=value_ratio,
            ffn_ratio=ffn_ratio,
            norm_cfg=norm_cfg or dict(type='SyncBN'),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the ViT with the adapter.

        Args:
            images (Tensor): Normalised images, shape (B, 3, H, W).

        Returns:
            tuple[Tensor, ...]: Maps (B, C, H / stride, W / stride) at strides 4, 8,
            16 and 32.
        """
        tokens, rope = self.embed(images), self.rotary_codes()
        blocks_per_stage = self.depth // STAGES

        def run_stage(stage: int, x: Tensor) -> Tensor:
            first = stage * blocks_per_stage
            for block in self.blocks[first : first + blocks_per_stage]:
                x = self.run_block(block, x, rope)
            return x

        return self.adapter(images, tokens, run_stage)
