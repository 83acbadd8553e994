"""Mask2Former's Transformer decoder with masks that can be annealed.

Masked attention of Mask2Former (arXiv 2112.01527, Sec. 3.2.1): before a layer of the
decoder every query predicts a mask, and its cross-attention is confined to it. Here a
query of a layer is masked with a probability, as EoMT does it (arXiv 2503.19108,
Sec. 3.3 and Table C), and a layer without masks predicts none in testing.
"""

from mmengine.config import ConfigDict
from torch import Tensor

from eomt_mm.errors import UserError

from ..backbone_sizes import FollowsBackbone
from ..criterion import Prediction
from ..mask_probs import settle_mask_probs
from ..masked_attention import query_patch_mask
from ..plain_vit import PlainViT
from ..precision import no_autocast


class MaskedDecoder(FollowsBackbone):
    """The part that the Mask2Former heads for MMDet and MMSeg share.

    A mixin: name it before the stock head among the bases. The stock head has the
    parameters, their names and the losses.

    `mask_probs` holds the probability that a query is masked, for each layer of the
    decoder. It is a list of plain floats: a layer is fully masked, partly masked or
    free without any wait for the device. `MaskAnnealingHook` rewrites it before every
    iteration.

    `in_channels` follows from the backbone in the models of this package, and
    `loss_cls.class_weight`, where it is missing, is 1 for each class and 0.1 for "no
    object".

    Args:
        mask_probs (list[float], optional): Mask probabilities where no hook sets
            them. Defaults to 1 for all: Mask2Former as it was published.
        deep_supervision (bool): Whether training predicts, and supervises, before
            every layer. Without it nothing can be masked either. Defaults to True.
        **kwargs: Arguments of the head.

    Raises:
        UserError: If numbers of layers or classes do not fit together.
    """

    def __init__(
        self,
        *,
        mask_probs: list[float] | None = None,
        deep_supervision: bool = True,
        **kwargs,
    ) -> None:
        levels = kwargs.get('num_transformer_feat_level', 3)
        # MMDet's head reads num_levels from pixel_decoder.encoder, even if the decoder
        # has no encoder.
        encoder = dict(layer_cfg=dict(self_attn_cfg=dict(num_levels=levels)))
        kwargs['pixel_decoder'] = ConfigDict(
            {'encoder': encoder, **kwargs['pixel_decoder']}
        )
        kwargs['transformer_decoder'] = ConfigDict(kwargs['transformer_decoder'])
        kwargs['loss_cls'] = ConfigDict(kwargs['loss_cls'])
        if 'class_weight' not in kwargs['loss_cls']:
            kwargs['loss_cls'].class_weight = [1.0] * _num_classes(kwargs) + [0.1]
        super().__init__(**kwargs)
        num_layers = self.num_transformer_decoder_layers
        self.deep_supervision = deep_supervision
        self.mask_probs = settle_mask_probs(
            mask_probs, num_layers, float(deep_supervision), deep_supervision
        )
        if len(self.class_weight) != self.num_classes + 1:
            raise UserError(
                f'loss_cls.class_weight has {len(self.class_weight)} values, expected '
                f'one for each of the {self.num_classes} classes and "no object": '
                f'class_weight=[1.0] * {self.num_classes} + [0.1]'
            )

    @classmethod
    def sizes_from(cls, backbone: PlainViT, config: dict) -> dict:
        """Return `in_channels`: all maps of the backbone have its channels.

        The finest map serves the masks alone, each other map is one level of the
        decoder. See `FollowsBackbone.sizes_from`.
        """
        levels = config.get('num_transformer_feat_level', 3) + 1
        stated = config.get('in_channels')
        count = len(stated) if stated else levels
        return dict(in_channels=[backbone.embed_dims] * count)

    def forward(
        self, x: tuple[Tensor, ...], batch_data_samples: list | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Predict.

        Args:
            x (tuple[Tensor, ...]): Feature maps, fine to coarse.
            batch_data_samples (list, optional): Not used.

        Returns:
            tuple[list[Tensor], list[Tensor]]: Class logits (B, K, classes + 1) and
            mask logits (B, K, H / 4, W / 4). One prediction per supervised or masked
            layer, then the final one.
        """
        # In single precision, as in the published code; see `DeformableAttention`.
        with no_autocast(x[0].device):
            features, memories = self.pixel_decoder([level.float() for level in x])
        levels = [self._level(i, memory) for i, memory in enumerate(memories)]
        queries = self.query_feat.weight.expand(len(features), -1, -1)
        query_pos = self.query_embed.weight.expand(len(features), -1, -1)

        supervised = self.training and self.deep_supervision
        predictions = []
        for i, (layer, prob) in enumerate(
            zip(self.transformer_decoder.layers, self.mask_probs, strict=True)
        ):
            # From the coarsest level to the finest, and again.
            tokens, token_pos, size = levels[i % len(levels)]
            mask = None
            if supervised or prob > 0:
                predictions.append(self._predict(queries, features))
            if prob > 0:
                mask = self._attention_mask(predictions[-1][1], size, prob)
            queries = layer(
                query=queries,
                key=tokens,
                value=tokens,
                query_pos=query_pos,
                key_pos=token_pos,
                cross_attn_mask=mask,
            )
        predictions.append(self._predict(queries, features))
        classes, masks = zip(*predictions, strict=True)
        return list(classes), list(masks)

    def final_prediction(self, x: tuple[Tensor, ...]) -> Prediction:
        """Return the last class logits and mask logits."""
        classes, masks = self(x)
        return classes[-1], masks[-1]

    def loss_by_feat(
        self, all_cls_scores: list[Tensor], all_mask_preds: list[Tensor], *targets
    ) -> dict[str, Tensor]:
        """Compute the head's own losses in single precision; see `criterion`."""
        with no_autocast(all_mask_preds[0].device):
            return super().loss_by_feat(
                [scores.float() for scores in all_cls_scores],
                [masks.float() for masks in all_mask_preds],
                *targets,
            )

    def _level(self, i: int, memory: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return tokens (B, N, C) of a level, position codes, rows and columns."""
        tokens = self.decoder_input_projs[i](memory).flatten(2).transpose(1, 2)
        codes = self.decoder_positional_encoding(None, memory)  # (B, C, h, w)
        codes = codes.flatten(2).transpose(1, 2)
        return tokens + self.level_embed.weight[i], codes, memory.shape[-2:]

    def _predict(self, queries: Tensor, features: Tensor) -> Prediction:
        """Return class logits (B, K, classes + 1) and mask logits (B, K, H, W)."""
        queries = self.transformer_decoder.post_norm(queries)
        masks = self.mask_embed(queries) @ features.flatten(2)
        return self.cls_embed(queries), masks.unflatten(2, features.shape[2:])

    def _attention_mask(
        self, mask_logits: Tensor, size: tuple[int, int], prob: float
    ) -> Tensor:
        """Return a mask (B * heads, K, N) as PyTorch has it: True is closed."""
        seen = query_patch_mask(mask_logits, size, prob)
        # Cross-attention sees nothing but the map: an empty mask is dropped.
        seen |= ~seen.any(-1, keepdim=True)
        return (~seen).repeat_interleave(self.num_heads, dim=0)


def _num_classes(head: dict) -> int:
    """Count the classes of a head, which MMSeg and MMDet name differently."""
    if 'num_classes' in head:
        return head['num_classes']
    return head['num_things_classes'] + head['num_stuff_classes']
