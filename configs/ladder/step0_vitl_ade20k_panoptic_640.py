# Step (0) of the ladder, ViT-Adapter + Mask2Former, with DINOv2 ViT-L on ADE20K
# panoptic, 150 classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step0_vitl_ade20k_panoptic_640.py 4 --amp \
#       --cfg-options load_from=COCO_CHECKPOINT
#   python tools/test.py configs/ladder/step0_vitl_ade20k_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 51.8 (quoted, arXiv 2503.19108 Table 4; not measured
# with this code). 348.68 M parameters.
_base_ = [
    '../_base_/models/vit_adapter_mask2former_vitl_panoptic.py',
    '../_base_/datasets/ade20k_panoptic.py',
    '../_base_/schedules/eomt.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    panoptic_head=dict(
        num_things_classes=100,
        num_stuff_classes=50,
    ),
)
# 31 epochs of 20,210 images, as long as EoMT is trained.
train_cfg = dict(max_iters=39120, val_interval=3912)
default_hooks = dict(
    checkpoint=dict(interval=3912, save_best='coco_panoptic/PQ', rule='greater')
)
# Masks stay on: no annealing.
custom_hooks = [
    dict(type='eomt_mm.IterationSeedHook'),
    # Training starts from COCO panoptic, of step0_vitl_coco_panoptic_640.py.
    dict(type='eomt_mm.FineTuningHook', required=True),
]
