# EoMT-L (DINOv2) on Pascal VOC 2012, 21 classes, 512 x 512.
#
#   tools/dist_train.sh configs/eomt/eomt_vitl_voc12.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vitl_voc12.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. No published score. 315,888,662 parameters, 394.4 GFLOPs.
_base_ = [
    '../_base_/models/eomt_vitl_semantic.py',
    '../_base_/datasets/pascal_voc12.py',
    '../_base_/schedules/eomt.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    decode_head=dict(num_classes=21),
)
# 1,464 images, of which 91 full batches of 16 an epoch; 110 epochs.
train_cfg = dict(max_iters=10010, val_interval=910)
default_hooks = dict(checkpoint=dict(interval=910, save_best='mIoU'))
