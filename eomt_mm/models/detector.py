"""The bridge to MMDetection: preprocessor, detector, panoptic head, fusion head.

`EoMTDetector` differs from MMDet's `MaskFormer` mainly in one place: in training the
head predicts between the blocks of the backbone. A stock `MaskFormer`, with this
fusion head or with its own, runs the same weights.
"""

import torch
from mmdet.models import BaseDetector, DetDataPreprocessor, MaskFormer
from mmdet.models.seg_heads.panoptic_fusion_heads import BasePanopticFusionHead
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData
from torch import Tensor
from torch.nn import functional as F

from eomt_mm.errors import UserError
from eomt_mm.evaluation import provide_panopticapi
from eomt_mm.registry import MODELS
from eomt_mm.run_lengths import EncodedMasks, encode_masks

from .checkpoint_check import refuse_misfit
from .criterion import Prediction, Target
from .mask_head import MaskHead
from .network import NetworkModel
from .options import complete_test_cfg
from .postprocess import (
    INSTANCE_OFFSET,
    instance_result,
    panoptic_result,
    semantic_result,
)
from .sizes import PadsToBackbone, follows_backbone, settle_size, sized
from .targets import panoptic_targets

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
        **kwargs: Arguments of `DetDataPreprocessor`.
    """

    def __init__(self, size: tuple[int, int] | None = None, **kwargs) -> None:
        super().__init__(pad_mask=True, pad_seg=True, **kwargs)
        self.size = None if size is None else tuple(size)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Pad, normalise and stack a batch.

        Args:
            data (dict): `inputs`, uint8 images (3, H, W), and `data_samples`.
            training (bool): Whether ground truth is padded too.

        Returns:
            dict: `inputs`, a tensor (B, 3, *size), and `data_samples` with
            `batch_input_shape` and `pad_shape` of that size.
        """
        images = [self._pad(image) for image in data['inputs']]
        return super().forward({**data, 'inputs': images}, training)

    def _pad(self, image: Tensor) -> Tensor:
        (height, width), (rows, cols) = image.shape[-2:], self.size_or_error()
        if height > rows or width > cols:
            raise UserError(
                f'an image of {height} x {width} pixels is larger than '
                f'data_preprocessor.size {rows} x {cols}: resize it in the pipeline, '
                f"for instance with dict(type='eomt_mm.FitInside', size={rows})"
            )
        return F.pad(image, (0, cols - width, 0, rows - height))


@MODELS.register_module()
class PanopticHead(MaskHead):
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

    def targets(self, data_samples: list[DetDataSample]) -> list[Target]:
        """Convert ground truth to targets of the criterion.

        Args:
            data_samples (list[DetDataSample]): Samples that carry `gt_instances` and,
                if there are classes of stuff, `gt_sem_seg`, all of equal sizes.

        Returns:
            list[Target]: One for each image.
        """
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

    def loss(
        self, feats: tuple[Tensor, Tensor], data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        """The loss of the final prediction alone, for a stock `MaskFormer`."""
        return self.criterion([self(*feats)], self.targets(data_samples))

    def predict(
        self, feats: tuple[Tensor, Tensor], data_samples: list[DetDataSample]
    ) -> Prediction:
        """Class logits, and mask logits at the input's size, for `MaskFormer`."""
        class_logits, mask_logits = self(*feats)
        size = data_samples[0].batch_input_shape
        masks = F.interpolate(mask_logits.float(), size, mode='bilinear')
        return class_logits, masks


@MODELS.register_module()
class FusionHead(BasePanopticFusionHead):
    """Turns logits into panoptic segments and instances, as the paper does.

    It takes the place of MMDet's `MaskFormerFusionHead`, in any detector that has
    one. `test_cfg` may hold:

    - `panoptic_on` (bool): Whether to return segments. Defaults to True.
    - `instance_on` (bool): Whether to return instances. Defaults to False.
    - `semantic_on` (bool): Whether to return a class for every pixel, for MMDet's
      `SemSegMetric`. Defaults to False.
    - `object_mask_thr` (float): Least class score of a segment. Defaults to 0.8.
    - `iou_thr` (float): Least share of a segment that others leave visible.
      Defaults to 0.8.
    - `max_per_image` (int): Most instances. Defaults to 100.
    - `encode_masks` (bool): Whether each instance mask is run-length encoded as soon
      as it is made, as in COCO's files. A hundred masks of a photograph of 6000 x
      4000 pixels take 2.4 GB on the device otherwise. `CocoMetric` takes both;
      visualizers need plain masks. Defaults to False.
    - `block_bytes` (int, optional): Memory that masks may take while they are resized
      and compared, on top of the result; more in fewer steps. Defaults to 512 MiB on
      an accelerator, and to one mask at a time on a CPU.

    Args:
        num_things_classes (int): Number of classes with instances.
        num_stuff_classes (int): Number of the others.
        test_cfg (dict, optional): See above.
        init_cfg (dict, optional): MMEngine's initialisation config.
    """

    def __init__(
        self,
        num_things_classes: int,
        num_stuff_classes: int,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        defaults = dict(
            panoptic_on=True,
            instance_on=False,
            semantic_on=False,
            object_mask_thr=0.8,
            iou_thr=0.8,
            max_per_image=100,
            encode_masks=False,
            block_bytes=None,
        )
        # Low scores are always filtered; MMDet's configs say so.
        test_cfg = complete_test_cfg(test_cfg, defaults, ['filter_low_score'])
        if test_cfg['panoptic_on'] and not num_stuff_classes:
            raise UserError(
                'num_stuff_classes is 0, but test_cfg.panoptic_on is True, and the '
                'panoptic quality of stuff has no meaning without any: for instance '
                'segmentation set panoptic_on=False and instance_on=True'
            )
        block_bytes = test_cfg['block_bytes']
        if block_bytes is not None and not (
            isinstance(block_bytes, int) and block_bytes > 0
        ):
            raise UserError(
                f'test_cfg.block_bytes is {block_bytes!r}, expected a number of bytes '
                'such as 536870912 (one mask is always taken), or None'
            )
        classes = num_things_classes + num_stuff_classes
        if test_cfg['panoptic_on'] and classes >= INSTANCE_OFFSET:
            raise UserError(
                f'{classes} classes, but a panoptic result holds class + '
                f'{INSTANCE_OFFSET} x instance, and void besides: it holds '
                f'{INSTANCE_OFFSET - 1} classes at most. Set panoptic_on=False'
            )
        super().__init__(
            num_things_classes, num_stuff_classes, test_cfg, None, init_cfg
        )

    def loss(self) -> dict:
        """Return no loss: there is nothing to train."""
        return {}

    def predict(
        self,
        class_logits: Tensor,
        mask_logits: Tensor,
        data_samples: list[DetDataSample],
        rescale: bool = True,
    ) -> list[dict[str, PixelData | InstanceData]]:
        """Turn logits into results.

        Args:
            class_logits (Tensor): Shape (B, K, classes + 1).
            mask_logits (Tensor): Shape (B, K, h, w), any resolution.
            data_samples (list[DetDataSample]): Samples whose metainfo has
                `batch_input_shape`, `img_shape` and `ori_shape`.
            rescale (bool): Whether results have the size of the original image
                instead of the resized one. Defaults to True.

        Returns:
            list[dict]: `pan_results`, whose `sem_seg` (1, H, W) int64 holds class +
            1000 * instance; `ins_results` with `bboxes`, `labels`, `scores` and
            `masks` (N, H, W) bool or, with `encode_masks`, N dicts of `size` and
            `counts`; `sem_results`, whose `sem_seg` (1, H, W) int64 holds classes;
            each if it is on.
        """
        cfg, results = self.test_cfg, []
        encode = encode_masks if cfg['encode_masks'] else None
        for *logits, sample in zip(
            class_logits, mask_logits, data_samples, strict=True
        ):
            shape = tuple(sample.img_shape[:2])
            sizes = (
                shape,
                tuple(sample.batch_input_shape),
                tuple(sample.ori_shape[:2]) if rescale else shape,
            )
            result = {}
            if cfg['panoptic_on']:
                segments = panoptic_result(
                    *logits,
                    *sizes,
                    self.num_things_classes,
                    cfg['object_mask_thr'],
                    cfg['iou_thr'],
                    cfg['block_bytes'],
                )
                result['pan_results'] = PixelData(sem_seg=segments[None])
            if cfg['instance_on']:
                labels, scores, masks, boxes = instance_result(
                    *logits,
                    *sizes,
                    self.num_things_classes,
                    cfg['max_per_image'],
                    encode,
                    cfg['block_bytes'],
                )
                # pycocotools takes a plain list alone, and MMDet's inferencer calls
                # `masks.cpu()` where all boxes are empty.
                if encode and not boxes.any():
                    masks = EncodedMasks(masks)
                result['ins_results'] = InstanceData(
                    bboxes=boxes, labels=labels, scores=scores, masks=masks
                )
            if cfg['semantic_on']:
                classes = semantic_result(*logits, *sizes, cfg['block_bytes'])
                result['sem_results'] = PixelData(sem_seg=classes[None])
            results.append(result)
        return results


@MODELS.register_module()
class EoMTDetector(NetworkModel, MaskFormer):
    """EoMT as a panoptic or instance detector of MMDet.

    Args:
        backbone (dict): Config of a `QueryViT`.
        panoptic_head (dict): Config of a `PanopticHead`; its sizes follow from the
            backbone.
        panoptic_fusion_head (dict, optional): Defaults to a `FusionHead` with the
            classes of `panoptic_head`.
        neck (dict, optional): Config of what stands between backbone and head in
            baselines; EoMT has none.
        train_cfg (dict, optional): Handed to the head; EoMT's does not use it.
        test_cfg (dict, optional): See `FusionHead`.
        data_preprocessor (dict, optional): Config of an `EoMTDetDataPreprocessor`.
        init_cfg (dict, optional): MMEngine's initialisation config.
    """

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
            self.neck = MMDET_MODELS.build(sized(neck, self.backbone, 'neck'))
        head = ConfigDict(panoptic_head)
        if follows_backbone(neck):
            head = sized(head, self.backbone, 'panoptic_head')
        self.panoptic_head = MMDET_MODELS.build(
            ConfigDict(head, train_cfg=train_cfg, test_cfg=test_cfg)
        )
        self.panoptic_fusion_head = MMDET_MODELS.build(
            ConfigDict(fusion, test_cfg=test_cfg)
        )
        settle_size(self.data_preprocessor, self.backbone)
        self.num_things_classes = self.panoptic_head.num_things_classes
        self.num_stuff_classes = self.panoptic_head.num_stuff_classes
        self.num_classes = self.panoptic_head.num_classes
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        self.register_load_state_dict_pre_hook(refuse_misfit)

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        """Losses of the predictions before each of the last blocks and of the final.

        Args:
            batch_inputs (Tensor): Normalised images, shape (B, 3, H, W).
            batch_data_samples (list[DetDataSample]): See `PanopticHead.targets`.

        Returns:
            dict[str, Tensor]: `loss_cls`, `d0.loss_cls`, ...
        """
        # Targets first: building them synchronises with the GPU, which costs nothing
        # while its queue is empty.
        targets = self.panoptic_head.targets(batch_data_samples)
        predictions = self.network.all_predictions(batch_inputs)
        return self.panoptic_head.criterion(predictions, targets)

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
            and `pred_sem_seg` as far as they are on.
        """
        results = self.panoptic_fusion_head.predict(
            *self._forward(batch_inputs), batch_data_samples, rescale=rescale
        )
        return self.add_pred_to_datasample(batch_data_samples, results)

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
        """Class logits and mask logits."""
        return self.network(batch_inputs)
