"""Mask2Former for MMSegmentation, with masks that can be annealed, in even windows."""

import torch
from mmengine.structures import InstanceData
from mmseg.models.decode_heads import Mask2FormerHead as StockHead
from mmseg.structures import SegDataSample
from torch import Tensor

from eomt_mm.registry import MODELS

from ..criterion import Prediction
from ..segmentor import SemanticTargets, WindowedSegmentor
from ..windows import class_map
from .masked_decoder import MaskedDecoder


@MODELS.register_module()
class SemanticMask2FormerHead(SemanticTargets, MaskedDecoder, StockHead):
    """MMSeg's `Mask2FormerHead` with masks that can be annealed.

    It takes that head's place in any segmentor, with the same arguments and weights,
    and in sliding windows too, where the stock head returns maps of a wrong size.

    Args:
        **kwargs: Arguments of `MaskedDecoder` and of MMSeg's `Mask2FormerHead`.
    """

    def _seg_data_to_instance_data(
        self, batch_data_samples: list[SegDataSample]
    ) -> tuple[list[InstanceData], list[dict]]:
        """Make one target for each class in an image; refuse a wrong label."""
        targets = [
            InstanceData(labels=target.labels, masks=target.masks)
            for target in self.targets(batch_data_samples)
        ]
        return targets, [sample.metainfo for sample in batch_data_samples]

    def predict(
        self, x: tuple[Tensor, ...], batch_img_metas: list[dict], _cfg: dict
    ) -> Tensor:
        """Return class scores at the input's size, for a stock `EncoderDecoder`.

        Args:
            x (tuple[Tensor, ...]): Feature maps, fine to coarse.
            batch_img_metas (list[dict]): MMSeg's sliding windows put the size of the
                window into `img_shape`, as a `torch.Size`, and leave `pad_shape` that
                of the image.

        Returns:
            Tensor: Shape (B, classes, H, W), probability-like sums over queries.
        """
        meta = batch_img_metas[0]
        size = meta['img_shape']
        if not isinstance(size, torch.Size):
            size = meta.get('pad_shape', size)
        return torch.stack(
            [
                class_map(classes, masks, tuple(size[:2]))
                for classes, masks in zip(*self.final_prediction(x), strict=True)
            ]
        )


@MODELS.register_module()
class Mask2FormerSegmentor(WindowedSegmentor):
    """Mask2Former, tested in even windows of the size of `backbone.img_size`.

    Takes the arguments of `WindowedSegmentor`; `decode_head` is a
    `SemanticMask2FormerHead`, which `EncoderDecoder` trains.
    """

    def _forward(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> Prediction:
        """Return class logits and mask logits of images of the backbone's size."""
        return self.decode_head.final_prediction(self.extract_feat(inputs))
