"""MMDetection's fusion head on the logits of one image, in this package's encoding."""

import torch.nn.functional as F
from torch import Tensor

from eomt_mm.models.postprocess import Instances, Size

from .inputs import CLASSES, THINGS

TASKS = ('panoptic', 'instance')


def panoptic(
    class_logits: Tensor, mask_logits: Tensor, shapes: tuple[Size, Size, Size]
) -> Tensor:
    """Return ids (H, W), see `eomt_mm.models.postprocess.panoptic_result`."""
    found = _predict(class_logits, mask_logits, shapes, panoptic_on=True)
    return found['pan_results'].sem_seg[0].long()


def instances(
    class_logits: Tensor, mask_logits: Tensor, shapes: tuple[Size, Size, Size]
) -> Instances:
    """Return things, see `eomt_mm.models.postprocess.instance_result`."""
    found = _predict(class_logits, mask_logits, shapes, instance_on=True)
    found = found['ins_results']
    return Instances(found.labels, found.scores, found.masks, found.bboxes)


def _predict(
    class_logits: Tensor,
    mask_logits: Tensor,
    shapes: tuple[Size, Size, Size],
    panoptic_on: bool = False,
    instance_on: bool = False,
) -> dict:
    from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
    from mmdet.structures import DetDataSample
    from mmengine.config import ConfigDict

    img_shape, input_size, ori_shape = shapes
    cfg = ConfigDict(
        panoptic_on=panoptic_on,
        instance_on=instance_on,
        filter_low_score=True,
        object_mask_thr=0.8,
        iou_thr=0.8,
        max_per_image=100,
    )
    head = MaskFormerFusionHead(THINGS, CLASSES - THINGS, test_cfg=cfg)
    # Part of MMDet's way: the head gets all masks at the input's size.
    large = F.interpolate(mask_logits[None], input_size, mode='bilinear')
    sample = DetDataSample(metainfo=dict(img_shape=img_shape, ori_shape=ori_shape))
    return head.predict(class_logits[None], large, [sample], rescale=True)[0]
