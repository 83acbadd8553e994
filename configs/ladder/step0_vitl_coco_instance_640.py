# Step (0) of the ladder, ViT-Adapter + Mask2Former, with DINOv2 ViT-L on COCO
# instances, 80 classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step0_vitl_coco_instance_640.py 4 --amp
#   python tools/test.py configs/ladder/step0_vitl_coco_instance_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. segm AP 47.6 (quoted, arXiv 2503.19108 Table 6; not
# measured with this code). 348.66 M parameters.
_base_ = [
    '../_base_/models/vit_adapter_mask2former_vitl_panoptic.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/eomt.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    backbone=dict(img_size={{_base_.crop_size}}),
    panoptic_head=dict(
        num_things_classes=80,
        num_stuff_classes=0,
    ),
    test_cfg=dict(panoptic_on=False, instance_on=True),
)
# As many iterations as for panoptic segmentation, to which they belong.
train_cfg = dict(max_iters=88692, val_interval=14782)
default_hooks = dict(
    checkpoint=dict(interval=14782, save_best='coco/segm_mAP', rule='greater')
)
# Masks stay on: no annealing.
custom_hooks = [
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
