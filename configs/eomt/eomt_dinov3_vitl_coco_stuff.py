# EoMT-L (DINOv3) on COCO-Stuff 164k, 171 classes, 512 x 512, 12 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitl_coco_stuff.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitl_coco_stuff.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. mIoU 52.5 (quoted, LightlyTrain's documentation, of its
# own code; not measured with this code). 315,071,660 parameters, 403.4 GFLOPs.
_base_ = [
    '../_base_/models/eomt_vitl_semantic.py',
    '../_base_/datasets/coco_stuff164k.py',
    '../_base_/schedules/eomt_dinov3.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        arch='vit_large_patch16_dinov3_qkvb.lvd1689m',
        img_size={{_base_.crop_size}},
        num_queries=200,
    ),
    decode_head=dict(num_classes=171),
)
custom_hooks = {{_base_.dinov3_hooks}}
# 118,287 images / 16 = 7,392 full batches an epoch; 12 epochs.
train_cfg = dict(max_iters=88704, val_interval=7392)
default_hooks = dict(checkpoint=dict(interval=7392, save_best='mIoU'))
