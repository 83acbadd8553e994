# EoMT-L (DINOv2) on COCO panoptic, 133 classes, 1280 x 1280.
#
#   tools/dist_train.sh configs/eomt/eomt_vitl_coco_panoptic_1280.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vitl_coco_panoptic_1280.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 58.3 (quoted, arXiv 2503.19108 Table 4; not
# measured with this code). 321,610,886 parameters.
_base_ = [
    '../_base_/models/eomt_vitl_panoptic.py',
    '../_base_/datasets/coco_panoptic_1280.py',
    '../_base_/schedules/eomt.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(img_size={{_base_.crop_size}}),
    panoptic_head=dict(num_things_classes=80, num_stuff_classes=53),
)
# 118,287 images, of which 7,391 full batches of 16 an epoch hold a segment; 12 epochs.
train_cfg = dict(max_iters=88692, val_interval=7391)
default_hooks = dict(
    checkpoint=dict(interval=7391, save_best='coco_panoptic/PQ', rule='greater')
)
