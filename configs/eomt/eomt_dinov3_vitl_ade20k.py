# EoMT-L (DINOv3) on ADE20K, 150 classes, 512 x 512, 16 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitl_ade20k.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitl_ade20k.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. mIoU 59.5 (quoted, the authors' model zoo; not
# measured with this code). 314,947,735 parameters.
_base_ = [
    '../_base_/models/eomt_vitl_semantic.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/eomt_dinov3.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        arch='vit_large_patch16_dinov3_qkvb.lvd1689m', img_size={{_base_.crop_size}}
    ),
    decode_head=dict(num_classes=150),
)
# All blocks learn at the full rate.
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=1.0))
custom_hooks = {{_base_.dinov3_hooks}}
# 20,210 images / 16 = 1,263 iterations an epoch; 16 epochs are 20,208. The published
# annealing steps belong to 19,560.
train_cfg = dict(max_iters=19560, val_interval=1956)
default_hooks = dict(checkpoint=dict(interval=1956, save_best='mIoU'))
