"""QueryViT: a plain ViT whose last blocks also carry learnable queries.

The network of EoMT (arXiv 2503.19108, Sec. 3.1, Fig. 2). The first L1 blocks of a
pre-trained timm ViT process the patches; then K learnable queries are put in front
of the tokens and the last L2 blocks process all of them jointly. There is no
decoder: the final norm of the ViT is the last layer before the mask head.
"""

from collections.abc import Callable

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from eomt_mm.engine.layer_decay import NEW_PARTS
from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from .masked_attention import query_patch_mask
from .plain_vit import build_vit
from .pretrained import check_arch, load_timm_weights
from .token_merging.build import build_merging
from .token_merging.merged_vit import merged_forward, refuse_training

# (queries (B, K, C), patches (B, C, h, w)) -> (class logits, mask logits)
Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@MODELS.register_module()
class QueryViT(BaseModule):
    """Any plain timm ViT, with K queries in its last blocks.

    Parameter names are timm's; the only one added is `queries`. Tokens in the last
    blocks are ordered [queries, CLS, registers, patches]. The queries have no
    positional code, be it learned or rotary, and skip the first blocks.

    `mask_probs` holds, for each of the last blocks, the probability that a query is
    masked. It is a list of plain floats, so that deciding whether a block needs a
    mask never waits for the device. `MaskAnnealingHook` rewrites it before every
    training iteration, and validation in between keeps it. A model that is only
    tested has what it was built with, by default 0: inference is a plain ViT.

    Args:
        arch (str): Name of a timm model, such as 'vit_large_patch14_reg4_dinov2'.
        img_size (int | tuple[int, int]): Height and width of the input in pixels.
        patch_size (int): Side of a patch in pixels. Pre-trained patch embeddings
            and position codes are resized to it. Defaults to 16.
        num_queries (int): Number K of queries. The paper has 100 for semantic, 200
            for panoptic and instance segmentation; with 0 it is a plain ViT, the
            backbone of other heads. Defaults to 200.
        num_blocks (int): Number L2 of last blocks that carry the queries. The paper
            has 3, 3, 4, 5 for S, B, L, g. Defaults to 4.
        pretrained (bool | str): True downloads timm's weights of `arch`, a string is
            the path of a local file, False starts from random weights. They are read
            by `init_weights`, thus in training only. Defaults to True.
        mask_probs (list[float], optional): Mask probabilities of the last blocks
            where no hook sets them. Defaults to 0 for all.
        deep_supervision (bool): Whether training predicts, and supervises, before
            each of the last blocks. Without it nothing is masked either (Table 7,
            trained "w/o masking"). Defaults to True.
        token_merging (dict, optional): Config of a `TokenMerging` such as `ALGM`, for
            faster inference. It has no weights: any checkpoint can be tested with it.
        timm_args (dict, optional): Further arguments of the timm model, such as
            `dict(embed_dim=128, depth=5)`.
        init_cfg (dict, optional): MMEngine's initialisation config, used instead of
            `pretrained` where given.

    Raises:
        UserError: If the model is unknown to timm or no plain ViT, or if sizes,
            blocks or probabilities do not fit together.
    """

    def __init__(
        self,
        arch: str,
        img_size: int | tuple[int, int],
        patch_size: int = 16,
        num_queries: int = 200,
        num_blocks: int = 4,
        pretrained: bool | str = True,
        mask_probs: list[float] | None = None,
        deep_supervision: bool = True,
        token_merging: dict | None = None,
        timm_args: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
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
            img_size=(height, width), patch_size=patch_size, **(timm_args or {})
        )
        vit = build_vit(arch, self.timm_args)

        self.depth = len(vit.blocks)
        if not 1 <= num_blocks <= self.depth:
            raise UserError(
                f'num_blocks is {num_blocks}, but {arch} has {self.depth} blocks: '
                f'the queries need between 1 and {self.depth} of them'
            )
        self.embed_dims = vit.embed_dim
        self.img_size = (height, width)
        self.patch_size = patch_size
        self.grid = vit.patch_embed.grid_size
        self.num_prefix_tokens = vit.num_prefix_tokens
        self.num_blocks = num_blocks
        self.num_queries = num_queries
        self.mask_probs = list(mask_probs or [0.0] * num_blocks)
        if len(self.mask_probs) != num_blocks:
            raise UserError(
                f'mask_probs has {len(self.mask_probs)} values, expected one for '
                f'each of the {num_blocks} last blocks'
            )
        self.token_merging = None
        if token_merging:
            self.token_merging = build_merging(token_merging)
            self.token_merging.bind(
                self.depth, self.depth - num_blocks, self.grid, vit.rope
            )
            if any(self.mask_probs):
                refuse_training()

        if any(self.mask_probs) and not deep_supervision:
            raise UserError(
                f'mask_probs is {self.mask_probs}, but without deep_supervision there '
                'are no predictions to mask with: set one of them'
            )
        self.deep_supervision = deep_supervision

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
        self.queries = None
        if num_queries:
            self.queries = nn.Parameter(torch.randn(num_queries, self.embed_dims))

    def init_weights(self) -> None:
        """Load the pre-trained weights; called once, by MMEngine's Runner.

        Raises:
            UserError: If the weights cannot be had or do not fit.
        """
        if self.init_cfg or not self.pretrained:
            super().init_weights()
            return
        weights = load_timm_weights(self.arch, self.pretrained, self.timm_args)
        own = [k for k in self.state_dict() if k.partition('.')[0] not in NEW_PARTS]
        self.load_state_dict({k: weights[k] for k in own}, strict=False)
        # MMEngine re-initialises whatever does not say that it is done.
        self._is_init = True

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run the ViT without masks: inference, and training without annealing.

        Args:
            images (Tensor): Normalised images, shape (B, 3, H, W).

        Returns:
            tuple[Tensor, Tensor]: Normalised query tokens of shape (B, K, C) and
            patch features of shape (B, C, H / patch, W / patch).
        """
        if self.token_merging is not None:
            return merged_forward(self, images)
        x, rope = self._enter_queries(images)
        for block in self.blocks[-self.num_blocks :]:
            x = run_block(block, x, rope)
        return self._read(x)

    def forward_masked(
        self, images: Tensor, predict: Predict
    ) -> list[tuple[Tensor, Tensor]]:
        """Run the ViT with masked attention at the current `mask_probs`.

        Every prediction is computed once: it masks its block, and it is returned
        for the loss.

        Args:
            images (Tensor): Normalised images, shape (B, 3, H, W).
            predict (Callable): The mask head: maps what `forward` returns to class
                logits and mask logits.

        Returns:
            list[tuple[Tensor, Tensor]]: L2 + 1 predictions, one before each of the
            last blocks and the final one; without deep supervision that one alone.
        """
        if self.token_merging is not None:
            refuse_training()
        if not self.deep_supervision:
            return [predict(*self(images))]
        x, rope = self._enter_queries(images)
        predictions = []
        for block, prob in zip(
            self.blocks[-self.num_blocks :], self.mask_probs, strict=True
        ):
            predictions.append(predict(*self._read(x)))
            mask = None
            if prob > 0:
                mask = query_patch_mask(predictions[-1][1], self.grid, prob)
            x = run_block(block, x, rope, mask)
        predictions.append(predict(*self._read(x)))
        return predictions

    def predict(self, images: Tensor, head: Predict) -> tuple[Tensor, Tensor]:
        """The final prediction, masked only while `mask_probs` says so.

        While a training run still masks, its validation masks too, as the reference
        does: without masks, a network that has not been annealed yet is lost.

        Args:
            images (Tensor): Normalised images, shape (B, 3, H, W).
            head (Callable): The mask head, as in `forward_masked`.

        Returns:
            tuple[Tensor, Tensor]: Class logits and mask logits.
        """
        if any(self.mask_probs):
            return self.forward_masked(images, head)[-1]
        return head(*self(images))

    def _enter_queries(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embed, run the first L1 blocks, put the queries in front.

        Also returns the rotary codes of the patches, for the blocks to come.
        """
        x, rope = self.embed(images), self.rotary_codes()
        for block in self.blocks[: -self.num_blocks]:
            x = run_block(block, x, rope)
        if self.queries is not None:
            x = torch.cat((self.queries.expand(len(x), -1, -1), x), dim=1)
        return x, rope  # x is (B, K + prefix + N, C)

    def rotary_codes(self) -> Tensor | None:
        """Sines and cosines of the patches, shape (N, 2d), if the ViT rotates."""
        return None if self.rope is None else self.rope.get_embed()

    def embed(self, images: Tensor) -> Tensor:
        """Patches with position codes, behind CLS and registers.

        Args:
            images (Tensor): Normalised images, shape (B, 3, H, W).

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
            token.expand(len(x), -1, -1)
            for token in (self.cls_token, self.reg_token)
            if token is not None
        ]
        x = torch.cat((*prefix, x), dim=1)
        if self.pos_embed is not None and covers_prefix:
            x = x + self.pos_embed
        return self.norm_pre(x)

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise tokens and take queries and patch map out of them."""
        x = self.norm(x)
        queries = x[:, : self.num_queries]
        patches = x[:, self.num_queries + self.num_prefix_tokens :]
        return queries, patches.transpose(1, 2).unflatten(2, self.grid)


def run_block(
    block: nn.Module, x: Tensor, rope: Tensor | None, mask: Tensor | None = None
) -> Tensor:
    """One block of timm's, of a ViT with rotary codes or without."""
    if rope is None:
        return block(x, mask)
    return block(x, rope, mask)
