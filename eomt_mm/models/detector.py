"""The bridge to MMDetection: preprocessor, detector and panoptic head.

The main difference from MMDet's `MaskFormer` is that in training the head predicts
between the blocks of the backbone. A stock `MaskFormer`, with the fusion head of
`fusion_head` or with its own, runs the same weights.
"""

from collections.abc import Sequence

import torch
from mmdet.models import BaseDetector, DetDataPreprocessor, MaskFormer
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from eomt_mm.errors import UserError
from eomt_mm.evaluation import provide_panopticapi
from eomt_mm.registry import MODELS

from .backbone_sizes import (
    PadsToBackbone,
    complete_config,
    first_channel,
    follows_backbone,
    set_input_size,
)
from .checkpoint_check import refuse_misfit
from .criterion import Prediction, Target
from .mask_head import MaskHead
from .network import NetworkModel
from .plain_vit import PlainViT
from .pretrained import RGB
from .targets import panoptic_targets
from .tiles import Tiling

# MMDet paints and saves panoptic results with its help.
provide_panopticapi()


@MODELS.register_module()
class EoMTDetDataPreprocessor(PadsToBackbone, DetDataPreprocessor):
    """MMDet's preprocessor, with all images padded to one size before the rest.

    Images are padded at the right and bottom with raw 0 *before* they are
    normalised, as the network sees them in training; the stock class pads with the
    mean colour. Masks and label maps are padded along with them. `img_shape` stays
    the size without padding: a `Pad` transform would overwrite it, and the results
    would come out squashed.

    Args:
        size (tuple[int, int], optional): Height and width of the network's input in
            pixels. `EoMTDetector` takes them from its backbone.
        mean (Sequence[float], optional): Mean of each channel, of which there may be
            any number. Defaults to no normalisation.
        std (Sequence[float], optional): Their standard deviations.
        **kwargs: Arguments of `DetDataPreprocessor`.

    Attributes:
        any_size (bool): Whether images may be larger in testing, and are not padded:
            a detector that cuts them into tiles sets it.
    """

    any_size = False

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs,
    ) -> None:
        first = first_channel(mean, std)
        super().__init__(pad_mask=True, pad_seg=True, **first, **kwargs)
        self.set_normalisation(mean, std)
        self.size = None if size is None else tuple(size)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Pad, normalise and stack a batch.

        Args:
            data (dict): `inputs`, images (C, H, W), and `data_samples`.
            training (bool): Whether ground truth is padded too.

        Returns:
            dict: `inputs`, a tensor (B, C, *size), and `data_samples` with
            `batch_input_shape` and `pad_shape` of that size.

        Raises:
            UserError: If an image is larger, or has other channels than the network
                takes.
        """
        self.check_channels(data)
        data = self.cast_data(data)  # to pad on the device, too
        if self.any_size and not training:
            return super().forward(data, training)
        images = [self._pad(image) for image in data['inputs']]
        return super().forward({**data, 'inputs': images}, training)

    def black(self) -> Tensor:
        """Return raw 0 as the network sees it, shape (C, 1, 1)."""
        zero = torch.zeros(self.channels or RGB, 1, 1, device=self.device)
        return (zero - self.mean) / self.std if self._enable_normalize else zero

    def _pad(self, image: Tensor) -> Tensor:
        (height, width), (rows, cols) = image.shape[-2:], self.require_size()
        if height > rows or width > cols:
            raise UserError(
                f'an image of {height} x {width} pixels is larger than '
                f'data_preprocessor.size {rows} x {cols}: resize it in the pipeline, '
                f"for instance with dict(type='eomt_mm.FitInside', size={rows}), or "
                'cut it into tiles with model.test_cfg.tiles=dict()'
            )
        return F.pad(image, (0, cols - width, 0, rows - height))


class PanopticTargets:
    """A mixin for heads: targets from the instances and label maps of MMDet.

    The head has the attributes below; things are the first classes.
    """

    num_things_classes: int
    num_stuff_classes: int
    num_classes: int
    ignore_index: int

    def targets(self, data_samples: list[DetDataSample]) -> list[Target]:
        """Convert ground truth to targets of the criterion.

        Args:
            data_samples (list[DetDataSample]): Samples that carry `gt_instances` and,
                if there are classes of stuff, `gt_sem_seg`, all of equal sizes.

        Returns:
            list[Target]: One for each image.

        Raises:
            UserError: If the pipeline loads no masks, or no label maps of the stuff.
        """
        kind = 'Panoptic' if self.num_stuff_classes else 'Instance'
        for sample in data_samples:
            stuff_missing = self.num_stuff_classes and 'gt_sem_seg' not in sample
            if stuff_missing or 'masks' not in sample.gt_instances:
                raise UserError(
                    'the training pipeline loads no masks, or no label map of the '
                    f'stuff: load annotations with eomt_mm.Load{kind}Annotations'
                )
        things = [
            Target(gt.labels, gt.masks.to_tensor(bool, gt.labels.device))
            for gt in (sample.gt_instances for sample in data_samples)
        ]
        names = [sample.metainfo.get('img_path', '?') for sample in data_samples]
        labels = None
        if self.num_stuff_classes:
            labels = torch.cat([s.gt_sem_seg.sem_seg for s in data_samples]).long()
        return panoptic_targets(
            things,
            labels,
            self.num_things_classes,
            self.num_classes,
            self.ignore_index,
            names,
        )


@MODELS.register_module()
class PanopticHead(PanopticTargets, MaskHead):
    """The mask head as a panoptic head of MMDet; without stuff, an instance head.

    Args:
        num_things_classes (int): Number of classes with instances; they come first.
        num_stuff_classes (int): Number of the others. Defaults to 0.
        embed_dims (int, optional): Channels of the tokens. `EoMTDetector` takes them
            from the backbone, like `patch_size`.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        ignore_index (int): Label of pixels without ground truth. Defaults to 255.
        criterion (dict, optional): Config of the loss. Defaults to `Criterion` with
            the paper's numbers.
        train_cfg (dict, optional): Not used; detectors of MMDet hand it over.
        test_cfg (dict, optional): Not used either.
        init_cfg (dict, optional): MMEngine's initialisation config.
    """

    def __init__(
        self,
        num_things_classes: int,
        num_stuff_classes: int = 0,
        embed_dims: int | None = None,
        patch_size: int = 16,
        ignore_index: int = 255,
        criterion: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        num_classes = num_things_classes + num_stuff_classes
        super().__init__(embed_dims, num_classes, patch_size, init_cfg)
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.ignore_index = ignore_index
        self.criterion = MODELS.build(criterion or dict(type='eomt_mm.Criterion'))

    def loss(
        self, feats: tuple[Tensor, Tensor], data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        """Compute the loss of the final prediction alone, for a stock `MaskFormer`."""
        return self.criterion([self(*feats)], self.targets(data_samples))

    def predict(
        self, feats: tuple[Tensor, Tensor], data_samples: list[DetDataSample]
    ) -> Prediction:
        """Predict, with masks at the input's size, for a stock `MaskFormer`."""
        class_logits, mask_logits = self(*feats)
        size = data_samples[0].batch_input_shape
        masks = F.interpolate(mask_logits.float(), size, mode='bilinear')
        return class_logits, masks


class QueryDetector(NetworkModel, MaskFormer):
    """A detector that follows the sizes of its backbone; its queries are segments.

    Args:
        backbone (dict): Config of the backbone, a `PlainViT` or any other.
        panoptic_head (dict): Config of the head; its sizes follow from the backbone.
        panoptic_fusion_head (dict, optional): Defaults to a `FusionHead` with the
            classes of `panoptic_head`.
        neck (dict, optional): Config of what stands between backbone and head.
        train_cfg (dict, optional): Handed to the head; EoMT's does not use it.
        test_cfg (dict, optional): See `FusionHead`, whose `tiles` are cut here.
        data_preprocessor (dict, optional): Config of an `EoMTDetDataPreprocessor`.
        init_cfg (dict, optional): MMEngine's initialisation config.

    Attributes:
        logits_only (bool): Whether samples get `query_logits` and no results: test-time
            augmentation merges them.
    """

    logits_only = False

    def __init__(
        self,
        backbone: dict,
        panoptic_head: dict,
        panoptic_fusion_head: dict | None = None,
        neck: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        classes = {
            key: panoptic_head.get(key, 0)
            for key in ('num_things_classes', 'num_stuff_classes')
        }
        fusion = panoptic_fusion_head or dict(type='eomt_mm.FusionHead', **classes)
        # MaskFormer's own constructor builds the head without a look at the backbone.
        BaseDetector.__init__(self, data_preprocessor, init_cfg)
        self.backbone = MMDET_MODELS.build(backbone)
        if neck is not None:
            self.neck = MMDET_MODELS.build(complete_config(neck, self.backbone, 'neck'))
        head = ConfigDict(panoptic_head)
        if follows_backbone(neck):
            head = complete_config(head, self.backbone, 'panoptic_head')
        self.panoptic_head = MMDET_MODELS.build(
            ConfigDict(head, train_cfg=train_cfg, test_cfg=test_cfg)
        )
        self.panoptic_fusion_head = MMDET_MODELS.build(
            ConfigDict(fusion, test_cfg=test_cfg)
        )
        set_input_size(self.data_preprocessor, self.backbone)
        self.num_things_classes = self.panoptic_head.num_things_classes
        self.num_stuff_classes = self.panoptic_head.num_stuff_classes
        self.num_classes = self.panoptic_head.num_classes
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        self.tiling = self._tiling((test_cfg or {}).get('tiles'))
        self.register_load_state_dict_pre_hook(refuse_misfit)

    def _tiling(self, options: dict | None) -> Tiling | None:
        """Return what cuts images into tiles; None without."""
        if options is None:
            return None
        if not isinstance(self.backbone, PlainViT):
            raise UserError(
                'test_cfg.tiles needs a PlainViT as backbone, whose input has one '
                f'size: {type(self.backbone).__name__} takes images of any size, give '
                'it larger ones'
            )
        self.data_preprocessor.any_size = True
        backbone = self.backbone
        return Tiling(
            options, backbone.img_size, backbone.patch_size, self.num_things_classes
        )

    def predict(
        self,
        batch_inputs: Tensor,
        batch_data_samples: list[DetDataSample],
        rescale: bool = True,
    ) -> list[DetDataSample]:
        """Segment images.

        Args:
            batch_inputs (Tensor): Normalised images, shape (B, 3, H, W).
            batch_data_samples (list[DetDataSample]): See `FusionHead.predict`.
            rescale (bool): Whether results have the size of the original images.
                Defaults to True.

        Returns:
            list[DetDataSample]: The same, with `pred_panoptic_seg`, `pred_instances`
            and `pred_sem_seg`, those that are enabled.
        """
        if self.logits_only:
            logits = zip(*self._forward(batch_inputs), strict=True)
            for sample, (classes, masks) in zip(
                batch_data_samples, logits, strict=True
            ):
                sample.query_logits = InstanceData(
                    class_logits=classes, mask_logits=masks
                )
            return batch_data_samples
        if self.tiling:
            results = [
                self._predict_tiled(image, sample, rescale)
                for image, sample in zip(batch_inputs, batch_data_samples, strict=True)
            ]
        else:
            results = self.panoptic_fusion_head.predict(
                *self._forward(batch_inputs), batch_data_samples, rescale=rescale
            )
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _predict_tiled(
        self, image: Tensor, sample: DetDataSample, rescale: bool
    ) -> dict:
        """Return the result of one padded image, seen in tiles."""
        height, width = shape = tuple(sample.img_shape[:2])
        segments = self.tiling.predict(
            self._forward,
            image[:, :height, :width],
            self.data_preprocessor.black(),
            even=bool(self.fast and self.fast.compiled),
        )
        ori_shape = tuple(sample.ori_shape[:2]) if rescale else shape
        return self.panoptic_fusion_head.result(segments, ori_shape)

    def add_pred_to_datasample(
        self, data_samples: list[DetDataSample], results_list: list[dict]
    ) -> list[DetDataSample]:
        """Put results into data samples; `MaskFormer` itself refuses semantic ones."""
        for sample, result in zip(data_samples, results_list, strict=True):
            if 'sem_results' in result:
                sample.pred_sem_seg = result.pop('sem_results')
        return super().add_pred_to_datasample(data_samples, results_list)

    def _forward(
        self,
        batch_inputs: Tensor,
        batch_data_samples: list[DetDataSample] | None = None,
    ) -> Prediction:
        """Return class logits and mask logits."""
        raise NotImplementedError


@MODELS.register_module()
class EoMTDetector(QueryDetector):
    """EoMT as a panoptic or instance detector of MMDet.

    Takes the arguments of `QueryDetector`: `backbone` is a `QueryViT`, `panoptic_head`
    a `PanopticHead`, and there is no neck.
    """

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        """Compute the losses of all predictions, before the last blocks and final.

        Args:
            batch_inputs (Tensor): Normalised images, shape (B, 3, H, W).
            batch_data_samples (list[DetDataSample]): See `PanopticTargets.targets`.

        Returns:
            dict[str, Tensor]: `loss_cls`, `d0.loss_cls`, ...
        """
        # Build targets first: this synchronises with the GPU, which costs nothing while
        # its queue is empty.
        targets = self.panoptic_head.targets(batch_data_samples)
        predictions = self.network.all_predictions(batch_inputs)
        return self.panoptic_head.criterion(predictions, targets)

    def _forward(
        self,
        batch_inputs: Tensor,
        batch_data_samples: list[DetDataSample] | None = None,
    ) -> Prediction:
        """Return class logits and mask logits."""
        return self.network(batch_inputs)
