# EoMT-L (DINOv2) on Cityscapes instances, 8 classes, 1024 x 2048.
#
#   python tools/dataset_converters/cityscapes_panoptic.py data/cityscapes
#   tools/dist_train.sh configs/eomt/eomt_vitl_cityscapes_instance.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vitl_cityscapes_instance.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. No published score. The score is COCO's mask AP, in which
# groups are crowds; the benchmark's own AP is defined otherwise. 323,317,769
# parameters, 6025.4 GFLOPs.
_base_ = [
    '../_base_/models/eomt_vitl_panoptic.py',
    '../_base_/datasets/cityscapes_instance.py',
    '../_base_/schedules/eomt.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    panoptic_head=dict(num_things_classes=8),
    test_cfg=dict(panoptic_on=False, instance_on=True),
)
# The length of eomt_vitl_cityscapes.py: 107 epochs of 2,975 images, fewer of those with
# an instance.
train_cfg = dict(max_iters=19902, val_interval=1860)
default_hooks = dict(
    checkpoint=dict(interval=1860, save_best='coco/segm_mAP', rule='greater')
)
