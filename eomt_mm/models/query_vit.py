"""QueryViT: a plain ViT whose last blocks also carry learnable queries.

The network of EoMT (arXiv 2503.19108, Sec. 3.1, Fig. 2). The first L1 blocks of a
pre-trained timm ViT process the patches; then K learnable queries are put in front
of the tokens and the last L2 blocks process all of them jointly. There is no
decoder: the final norm of the ViT is the last layer before the mask head.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from eomt_mm.errors import UserError

from .mask_probs import settle_mask_probs
from .masked_attention import query_patch_mask
from .plain_vit import PlainViT

# (queries (B, K, C), patches (B, C, h, w)) -> (class logits, mask logits)
Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class QueryViT(PlainViT):
    """A plain ViT with K queries in its last L2 blocks.

    The type `eomt_mm.QueryViT` of a config is `build.build_backbone`, which returns
    this class, or a `MergingViT` where the config has `token_merging`.

    The only parameter beside timm's is `queries`. Tokens in the last blocks are
    ordered [queries, CLS, registers, patches]. The queries have no positional code,
    learned or rotary, and skip the first blocks.

    `mask_probs` holds, for each of the last blocks, the probability that a query is
    masked. It is a list of plain floats, so that deciding whether a block needs a
    mask never waits for the device. `MaskAnnealingHook` rewrites it before every
    training iteration. Inference needs no masks: it is a plain ViT.

    Args:
        arch (str): See `PlainViT`, like `img_size` and `patch_size`.
        img_size (int | tuple[int, int]): Height and width of the input in pixels.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        num_queries (int): Number K of queries. The paper has 100 for semantic, 200
            for panoptic and instance segmentation. Defaults to 200.
        num_blocks (int): Last blocks L2 that carry queries (not the depth). The paper
            has 3, 3, 4, 5 for S, B, L, g. Defaults to 4.
        pretrained (bool | str): See `PlainViT`. Defaults to True.
        mask_probs (list[float], optional): Mask probabilities of the last blocks
            where no hook sets them. Defaults to 0 for all.
        deep_supervision (bool): Whether training predicts, and supervises, before
            each of the last blocks; without it nothing is masked (Table 7, "w/o
            masking"). Defaults to True.
        timm_args (dict, optional): See `PlainViT`.
        init_cfg (dict, optional): See `PlainViT`.
        checkpointing (bool): See `PlainViT`. Defaults to False.
        frozen (dict, optional): See `PlainViT`.
        in_channels (int): See `PlainViT`. Defaults to 3.

    Raises:
        UserError: If queries, blocks or probabilities do not fit together.
    """

    # Every image has the same number of tokens in a block, whatever it shows.
    fixed_lengths = True
    # The residual stream may be bf16, where that is the faster way.
    any_residual = True

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
        timm_args: dict | None = None,
        init_cfg: dict | None = None,
        checkpointing: bool = False,
        frozen: dict | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(
            arch,
            img_size,
            patch_size,
            pretrained,
            timm_args,
            init_cfg,
            checkpointing,
            frozen,
            in_channels,
        )
        if num_queries < 1:
            raise UserError(
                f'num_queries is {num_queries}, expected 1 or more: a ViT without '
                "queries is an 'eomt_mm.PlainViT'"
            )
        if not 1 <= num_blocks <= self.depth:
            raise UserError(
                f'num_blocks is {num_blocks}, but {arch} has {self.depth} blocks: '
                f'the queries need between 1 and {self.depth} of them'
            )
        self.num_queries = num_queries
        self.num_blocks = num_blocks
        self.mask_probs = settle_mask_probs(
            mask_probs, num_blocks, 0.0, deep_supervision
        )
        self.deep_supervision = deep_supervision
        self.queries = nn.Parameter(torch.randn(num_queries, self.embed_dims))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run the ViT without masks: inference, and training without annealing.

        Args:
            images (Tensor): Normalised images, shape (B, 3, H, W).

        Returns:
            tuple[Tensor, Tensor]: Normalised query tokens of shape (B, K, C) and
            patch features of shape (B, C, H / patch, W / patch).
        """
        x, rope = self._enter_queries(images)
        for block in self.blocks[-self.num_blocks :]:
            x = self.run_block(block, x, rope)
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
            x = self.run_block(block, x, rope, mask)
        predictions.append(predict(*self._read(x)))
        return predictions

    def _enter_queries(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embed, run the first L1 blocks and put the queries in front.

        Also returns the rotary codes of the patches, for the blocks that follow.
        """
        x, rope = self.embed(images), self.rotary_codes()
        for block in self.blocks[: -self.num_blocks]:
            x = self.run_block(block, x, rope)
        x = torch.cat((self.queries.expand(x.shape[0], -1, -1), x), dim=1)
        return x, rope  # x is (B, K + prefix + N, C)

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise the tokens; split them into queries and a map of the patches."""
        x = self.norm(x)
        patches = x[:, self.num_queries + self.num_prefix_tokens :]
        return x[:, : self.num_queries], self.to_map(patches)
