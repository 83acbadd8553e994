# EoMT-L (DINOv2) on Cityscapes, 19 classes, 1024 x 1024.
#
#   tools/dist_train.sh configs/eomt/eomt_vitl_cityscapes.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vitl_cityscapes.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. mIoU 84.2 (quoted, arXiv 2503.19108 Table 5; not
# measured with this code). 319,032,340 parameters.
_base_ = [
    '../_base_/models/eomt_vitl_semantic.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/eomt.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    decode_head=dict(num_classes=19),
)
# 2,975 images, of which 186 full batches of 16 an epoch; 107 epochs.
train_cfg = dict(max_iters=19902, val_interval=1860)
default_hooks = dict(checkpoint=dict(interval=1860, save_best='mIoU'))
