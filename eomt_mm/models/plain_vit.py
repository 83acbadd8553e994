"""PlainViT: a timm ViT as embedding, rotary codes and blocks.

Both families of `timm_vit` share it.
"""

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from .freezing import Freezing
from .pretrained import RGB, channel_rule, check_arch, load_timm_weights
from .timm_vit import build_vit

# Modules that a subclass adds to timm's ViT: no pre-trained weights exist for them.
# They learn at the full rate and warm up with the head.
NEW_PARTS = ('queries', 'adapter')


@MODELS.register_module()
class PlainViT(BaseModule):
    """Any plain timm ViT on images of one size.

    Parameter names are timm's. `num_blocks` is the number of last blocks that carry
    queries: none here.

    Args:
        arch (str): Name of a timm model, such as 'vit_large_patch14_reg4_dinov2'.
        img_size (int | tuple[int, int]): Height and width of the input in pixels.
        patch_size (int): Side of a patch in pixels. Pre-trained patch embeddings
            and position codes are resized to it. Defaults to 16.
        pretrained (bool | str): True downloads timm's weights of `arch`, a string is
            the path of a local file, False starts from random weights. They are read
            by `init_weights`, thus in training only. Defaults to True.
        timm_args (dict, optional): Further arguments of the timm model, such as
            `dict(embed_dim=128, depth=5)`.
        checkpointing (bool): Whether training keeps the input of each block alone and
            computes the rest again on the way back: the same gradients, in a fraction
            of the memory and a third more time. Defaults to False.
        frozen (dict, optional): What is not trained, see `Freezing`, for instance
            `dict(blocks='all')`. Defaults to nothing.
        in_channels (int): Channels of the images. The patch embedding of other than
            three is made from that of RGB, see `pretrained`. Defaults to 3.
        init_cfg (dict, optional): MMEngine's initialisation config, used instead of
            `pretrained` where given.

    Attributes:
        grid (tuple[int, int]): Rows and columns of the patches.
        num_prefix_tokens (int): CLS and registers, in front of the patches.

    Raises:
        UserError: If timm does not know the model, if it is not a plain ViT, if the
            image is not a whole number of patches, or if more blocks are frozen than
            there are.
    """

    def __init__(
        self,
        arch: str,
        img_size: int | tuple[int, int],
        patch_size: int = 16,
        pretrained: bool | str = True,
        timm_args: dict | None = None,
        init_cfg: dict | None = None,
        checkpointing: bool = False,
        frozen: dict | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(init_cfg)
        if in_channels < 1:
            raise UserError(f'in_channels is {in_channels}, expected 1 or more')
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if height % patch_size or width % patch_size:
            raise UserError(
                f'image size {height} x {width} is not a multiple of the patch size '
                f'{patch_size}: set crop_size and backbone.img_size to one, e.g. '
                f'{max(1, round(height / patch_size)) * patch_size}'
            )
        check_arch(arch)
        self.arch = arch
        self.pretrained = pretrained
        self.timm_args = dict(
            img_size=(height, width),
            patch_size=patch_size,
            in_chans=in_channels,
            **(timm_args or {}),
        )
        vit = build_vit(arch, self.timm_args)
        self.depth, self.num_blocks = len(vit.blocks), 0
        self.embed_dims = vit.embed_dim
        self.img_size = (height, width)
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.grid = vit.patch_embed.grid_size
        self.num_prefix_tokens = vit.num_prefix_tokens

        # Only what the forward pass uses is adopted: no pooling norm, no classifier.
        self.cls_token = vit.cls_token
        self.reg_token = vit.reg_token
        self.pos_embed = vit.pos_embed  # None for DINOv3, which has rotary codes only
        self.pos_embed_covers_prefix = not vit.no_embed_class
        self.rope = vit.rope
        self.patch_embed = vit.patch_embed
        self.norm_pre = vit.norm_pre
        self.blocks = vit.blocks
        self.norm = vit.norm

        self.checkpointing = checkpointing
        self.freezing = None if frozen is None else Freezing(self.depth, **frozen)
        if self.freezing:
            self.freezing.apply(self)

    def train(self, mode: bool = True) -> nn.Module:
        """Switch to training, but what is frozen to evaluation."""
        super().train(mode)
        if self.freezing:
            for module in self.freezing.modules(self):
                module.eval()
        return self

    def init_weights(self) -> None:
        """Load the pre-trained weights; called once, by MMEngine's Runner.

        Raises:
            UserError: If the weights are unavailable or do not fit.
        """
        if self.init_cfg or not self.pretrained:
            super().init_weights()
            return
        weights = load_timm_weights(self.arch, self.pretrained, self.timm_args)
        if self.in_channels != RGB:
            print_log(
                f'patch embedding: {channel_rule(self.in_channels)}', logger='current'
            )
        own = [k for k in self.state_dict() if k.partition('.')[0] not in NEW_PARTS]
        self.load_state_dict({k: weights[k] for k in own}, strict=False)
        # MMEngine re-initialises whatever does not say that it is done.
        self._is_init = True

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Run the ViT.

        Args:
            images (Tensor): Normalised images, shape (B, C, H, W).

        Returns:
            tuple[Tensor]: One map, (B, C, H / patch, W / patch), as necks expect it.
        """
        x, rope = self.embed(images), self.rotary_codes()
        for block in self.blocks:
            x = self.run_block(block, x, rope)
        return (self.to_map(self.norm(x)[:, self.num_prefix_tokens :]),)

    def embed(self, images: Tensor) -> Tensor:
        """Embed images: patches with position codes, after CLS and registers.

        Args:
            images (Tensor): Normalised images, shape (B, C, H, W).

        Returns:
            Tensor: Shape (B, prefix + N, C).

        Raises:
            UserError: If the images have another size than the ViT was built for.
        """
        if images.shape[-2:] != self.img_size:
            raise UserError(
                f'the ViT was built for images of {self.img_size[0]} x '
                f'{self.img_size[1]} pixels and got {images.shape[-2]} x '
                f'{images.shape[-1]}: make crop_size and backbone.img_size equal'
            )
        x = self.patch_embed(images)  # (B, N, C)
        covers_prefix = self.pos_embed_covers_prefix
        if self.pos_embed is not None and not covers_prefix:
            x = x + self.pos_embed
        prefix = [
            token.expand(x.shape[0], -1, -1)
            for token in (self.cls_token, self.reg_token)
            if token is not None
        ]
        x = torch.cat((*prefix, x), dim=1)
        if self.pos_embed is not None and covers_prefix:
            x = x + self.pos_embed
        return self.norm_pre(x)

    def rotary_codes(self) -> Tensor | None:
        """Return sines and cosines of the patches, (N, 2d), if there are any."""
        return None if self.rope is None else self.rope.get_embed()

    def run_block(
        self,
        block: nn.Module,
        x: Tensor,
        rope: Tensor | None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """One block; with `checkpointing` it is computed again on the way back."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(run_block, block, x, rope, mask, use_reentrant=False)
        return run_block(block, x, rope, mask)

    def to_map(self, patches: Tensor) -> Tensor:
        """Reshape patch tokens (B, N, C) to a map (B, C, rows, columns)."""
        return patches.transpose(1, 2).unflatten(2, self.grid)


def run_block(
    block: nn.Module, x: Tensor, rope: Tensor | None, mask: Tensor | None = None
) -> Tensor:
    """Run one timm block, with rotary codes or without."""
    if rope is None:
        return block(x, mask)
    return block(x, rope, mask)
