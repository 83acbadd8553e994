"""Mask2Former for MMDetection, on any backbone, with masks that can be annealed."""

from mmdet.models.dense_heads import Mask2FormerHead as StockHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from eomt_mm.registry import MODELS

from ..criterion import Prediction
from ..detector import PanopticTargets, QueryDetector
from .masked_decoder import MaskedDecoder


@MODELS.register_module()
class Mask2FormerHead(PanopticTargets, MaskedDecoder, StockHead):
    """MMDet's `Mask2FormerHead` with masks that can be annealed.

    It takes that head's place in any detector, with the same arguments and weights.

    Args:
        ignore_index (int): Label of pixels without ground truth. Defaults to 255.
        **kwargs: Arguments of `MaskedDecoder` and of MMDet's `Mask2FormerHead`.
    """

    def __init__(self, *, ignore_index: int = 255, **kwargs) -> None:
        super().__init__(**kwargs)
        self.ignore_index = ignore_index

    def loss(
        self, x: tuple[Tensor, ...], batch_data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        """Compute the losses of all predictions; refuse ground truth of a wrong class.

        Args:
            x (tuple[Tensor, ...]): Feature maps, fine to coarse.
            batch_data_samples (list[DetDataSample]): See `PanopticTargets.targets`.

        Returns:
            dict[str, Tensor]: `loss_cls`, `d0.loss_cls`, ...
        """
        # Build targets first: this synchronises with the GPU, which costs nothing while
        # its queue is empty.
        targets = [
            InstanceData(labels=target.labels, masks=target.masks)
            for target in self.targets(batch_data_samples)
        ]
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.loss_by_feat(*self(x), targets, metas)


@MODELS.register_module()
class Mask2FormerDetector(QueryDetector):
    """Mask2Former with this package's post-processing and checks of checkpoints.

    Takes the arguments of `QueryDetector`; `panoptic_head` is a
    `Mask2FormerHead`, which `MaskFormer` trains.
    """

    def _forward(
        self,
        batch_inputs: Tensor,
        batch_data_samples: list[DetDataSample] | None = None,
    ) -> Prediction:
        """Return class logits and mask logits."""
        return self.panoptic_head.final_prediction(self.extract_feat(batch_inputs))
