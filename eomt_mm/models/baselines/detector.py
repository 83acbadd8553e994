"""Mask2Former for MMDetection, on any backbone, with masks that can be annealed."""

from mmdet.models.dense_heads import Mask2FormerHead as StockHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from eomt_mm.registry import MODELS

from ..criterion import Prediction
from ..detector import EoMTDetector, PanopticHead
from .masked_decoder import MaskedDecoder


@MODELS.register_module()
class Mask2FormerHead(MaskedDecoder, StockHead):
    """MMDet's `Mask2FormerHead` with masks that can be annealed.

    It takes that head's place in any detector, with the same arguments and weights.

    Args:
        ignore_index (int): Label of pixels without ground truth. Defaults to 255.
        **kwargs: Arguments of `MaskedDecoder` and of MMDet's `Mask2FormerHead`.
    """

    # It reads the numbers of classes and `ignore_index`, which both heads have.
    targets = PanopticHead.targets

    def __init__(self, *, ignore_index: int = 255, **kwargs) -> None:
        super().__init__(**kwargs)
        self.ignore_index = ignore_index

    def loss(
        self, x: tuple[Tensor, ...], batch_data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        """Losses of all predictions; ground truth of a wrong class is refused.

        Args:
            x (tuple[Tensor, ...]): Feature maps, fine to coarse.
            batch_data_samples (list[DetDataSample]): See `PanopticHead.targets`.

        Returns:
            dict[str, Tensor]: `loss_cls`, `d0.loss_cls`, ...
        """
        # Targets first: building them synchronises with the GPU, which costs nothing
        # while its queue is empty.
        targets = [
            InstanceData(labels=target.labels, masks=target.masks)
            for target in self.targets(batch_data_samples)
        ]
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.loss_by_feat(*self(x), targets, metas)


@MODELS.register_module()
class Mask2FormerDetector(EoMTDetector):
    """Mask2Former with this package's post-processing and checks of checkpoints.

    Takes the arguments of `EoMTDetector`, `neck` and `train_cfg` included;
    `panoptic_head` is a `Mask2FormerHead`.
    """

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        """Losses of the head, behind backbone and neck."""
        feats = self.extract_feat(batch_inputs)
        return self.panoptic_head.loss(feats, batch_data_samples)

    def _forward(
        self,
        batch_inputs: Tensor,
        batch_data_samples: list[DetDataSample] | None = None,
    ) -> Prediction:
        """Class logits and mask logits."""
        return self.panoptic_head.final_prediction(self.extract_feat(batch_inputs))
