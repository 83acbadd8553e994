# EoMT-L (DINOv2) on COCO panoptic, 133 classes, 640 x 640.
#
#   tools/dist_train.sh configs/eomt/eomt_vitl_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vitl_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 56.0 (quoted, arXiv 2503.19108 Table 4; not
# measured with this code). 316,695,686 parameters.
_base_ = [
    '../_base_/models/eomt_vitl_panoptic.py',
    '../_base_/datasets/coco_panoptic.py',
    '../_base_/schedules/eomt.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    panoptic_head=dict(num_things_classes=80, num_stuff_classes=53),
)
# 118,287 images, of which 7,391 full batches of 16 an epoch hold a segment; 12 epochs.
train_cfg = dict(max_iters=88692, val_interval=7391)
default_hooks = dict(
    checkpoint=dict(interval=7391, save_best='coco_panoptic/PQ', rule='greater')
)
