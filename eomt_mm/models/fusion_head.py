"""The fusion head of MMDetection: results of all images of a batch, with options."""

from mmdet.models.seg_heads.panoptic_fusion_heads import BasePanopticFusionHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS
from eomt_mm.run_lengths import EncodedMasks, encode_masks

from .boxes import check_box_from
from .options import complete_test_cfg
from .postprocess import (
    INSTANCE_OFFSET,
    instance_result,
    panoptic_result,
    semantic_result,
)
from .tiles import Segments


@MODELS.register_module()
class FusionHead(BasePanopticFusionHead):
    """Turn logits into panoptic segments and instances, as the paper does.

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
    - `box_from` (str | float): What of an instance its box is drawn round: 'mask',
      all pixels, as the reference does; 'largest_component'; or the components that
      hold at least this share of the mask, in (0, 1]. See `boxes.boxes_of`. Defaults
      to 'mask'.
    - `tiles` (dict, optional): Whether detectors of this package cut images into
      tiles, and how: see `tiles.Tiling`. Defaults to None.
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
            box_from='mask',
            tiles=None,
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
        check_box_from(test_cfg['box_from'])
        if test_cfg['tiles'] is not None and test_cfg['semantic_on']:
            raise UserError(
                'test_cfg.tiles with semantic_on=True: tiles are merged segment by '
                'segment. Set semantic_on=False; a semantic model cuts images into '
                'windows anyway'
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
            those that are enabled.
        """
        if self.test_cfg['tiles'] is not None:
            raise UserError(
                'test_cfg.tiles: this detector does not cut images into tiles, '
                "type='eomt_mm.EoMTDetector' does"
            )
        results = []
        for *logits, sample in zip(
            class_logits, mask_logits, data_samples, strict=True
        ):
            shape, input_size = sample.img_shape[:2], sample.batch_input_shape
            segments = Segments(*logits, tuple(shape), tuple(input_size))
            ori_shape = sample.ori_shape[:2] if rescale else shape
            results.append(self.result(segments, tuple(ori_shape)))
        return results

    def result(
        self, segments: Segments, ori_shape: tuple[int, int]
    ) -> dict[str, PixelData | InstanceData]:
        """Turn the logits of one image into results.

        Args:
            segments (Segments): Its queries, or what tiles or views have in their
                place.
            ori_shape (tuple[int, int]): Height and width of the results.

        Returns:
            dict: See `predict`.
        """
        cfg, result = self.test_cfg, {}
        encode = encode_masks if cfg['encode_masks'] else None
        given = dict(
            segments._asdict(), ori_shape=ori_shape, block_bytes=cfg['block_bytes']
        )
        if cfg['panoptic_on']:
            ids = panoptic_result(
                **given,
                num_things=self.num_things_classes,
                score_thr=cfg['object_mask_thr'],
                overlap_thr=cfg['iou_thr'],
            )
            result['pan_results'] = PixelData(sem_seg=ids[None])
        if cfg['instance_on']:
            labels, scores, masks, boxes = instance_result(
                **given,
                num_things=self.num_things_classes,
                max_per_image=cfg['max_per_image'],
                encode=encode,
                box_from=cfg['box_from'],
            )
            # pycocotools takes a plain list alone, and MMDet's inferencer calls
            # `masks.cpu()` where all boxes are empty.
            if encode and not boxes.any():
                masks = EncodedMasks(masks)
            result['ins_results'] = InstanceData(
                bboxes=boxes, labels=labels, scores=scores, masks=masks
            )
        if cfg['semantic_on']:
            classes = semantic_result(**given)
            result['sem_results'] = PixelData(sem_seg=classes[None])
        return result
