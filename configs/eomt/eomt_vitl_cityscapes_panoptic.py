# EoMT-L (DINOv2) on Cityscapes panoptic, 8 + 11 classes, 1024 x 2048.
#
#   python tools/dataset_converters/cityscapes_panoptic.py data/cityscapes
#   tools/dist_train.sh configs/eomt/eomt_vitl_cityscapes_panoptic.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vitl_cityscapes_panoptic.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. No published score; a COCO model is a better start, with
# --cfg-options load_from=CHECKPOINT. 323,329,044 parameters, 6025.4 GFLOPs.
_base_ = [
    '../_base_/models/eomt_vitl_panoptic.py',
    '../_base_/datasets/cityscapes_panoptic.py',
    '../_base_/schedules/eomt.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    panoptic_head=dict(num_things_classes=8, num_stuff_classes=11),
)
# 2,975 images / 16 = 186 iterations an epoch; 107 epochs, as semantic.
train_cfg = dict(max_iters=19902, val_interval=1860)
default_hooks = dict(
    checkpoint=dict(interval=1860, save_best='coco_panoptic/PQ', rule='greater')
)
