# Step (0) of the ladder, ViT-Adapter + Mask2Former, with DINOv2 ViT-L on ADE20K, 150
# classes, 512 x 512.
#
#   tools/dist_train.sh configs/ladder/step0_vitl_ade20k.py 4 --amp
#   python tools/test.py configs/ladder/step0_vitl_ade20k.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. mIoU 58.9 (quoted, arXiv 2503.19108 Table 5; not measured
# with this code). 348.04 M parameters.
_base_ = [
    '../_base_/models/vit_adapter_mask2former_vitl_semantic.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/eomt.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    decode_head=dict(
        num_classes=150,
    ),
)
# 31 epochs of 20,210 images, as long as EoMT is trained.
train_cfg = dict(max_iters=39120, val_interval=3912)
default_hooks = dict(checkpoint=dict(interval=3912, save_best='mIoU'))
# Masks stay on: no annealing.
custom_hooks = [
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
