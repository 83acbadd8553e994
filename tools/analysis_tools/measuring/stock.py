"""MMDetection's fusion head on the logits of one image, in this package's encoding."""

import torch.nn.functional as F
from torch import Tensor

from eomt_mm.models.postprocess import Instances, Size

TASKS = ('panoptic', 'instance')


def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    img_shape: Size,
    input_size: Size,
    ori_shape: Size,
    num_things: int,
    overlap_thr: float = 0.8,
) -> Tensor:
    """See `eomt_mm.models.postprocess.panoptic_result`."""
    shapes = (img_shape, input_size, ori_shape)
    options = dict(panoptic_on=True, instance_on=False, iou_thr=overlap_thr)
    found = _predict(class_logits, mask_logits, shapes, num_things, options)
    return found['pan_results'].sem_seg[0].long()


def instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    img_shape: Size,
    input_size: Size,
    ori_shape: Size,
    num_things: int,
) -> Instances:
    """See `eomt_mm.models.postprocess.instance_result`."""
    shapes = (img_shape, input_size, ori_shape)
    options = dict(panoptic_on=False, instance_on=True, max_per_image=100)
    found = _predict(class_logits, mask_logits, shapes, num_things, options)
    found = found['ins_results']
    return Instances(found.labels, found.scores, found.masks, found.bboxes)


def _predict(
    class_logits: Tensor,
    mask_logits: Tensor,
    shapes: tuple[Size, Size, Size],
    num_things: int,
    options: dict,
) -> dict:
    from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
    from mmdet.structures import DetDataSample
    from mmengine.config import ConfigDict

    img_shape, input_size, ori_shape = shapes
    cfg = ConfigDict(options, filter_low_score=True, object_mask_thr=0.8)
    num_stuff = class_logits.shape[1] - 1 - num_things
    head = MaskFormerFusionHead(num_things, num_stuff, test_cfg=cfg)
    # Part of MMDet's way: the head gets all masks at the input's size.
    large = F.interpolate(mask_logits[None], input_size, mode='bilinear')
    sample = DetDataSample(metainfo=dict(img_shape=img_shape, ori_shape=ori_shape))
    return head.predict(class_logits[None], large, [sample], rescale=True)[0]
