# A small EoMT that learns instance segmentation of synthetic scenes from nothing, in
# minutes.
#
#   make demo TASK=instance
#   python tools/dataset_converters/make_scenes.py data/scenes
#   python tools/train.py configs/demo/eomt_scenes_instance.py
_base_ = [
    '../_base_/models/eomt_vitl_panoptic.py',
    '../_base_/datasets/scenes_instance.py',
    '../_base_/schedules/eomt_from_nothing.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    backbone=dict(
        arch='vit_tiny_patch16_224',
        img_size={{_base_.crop_size}},
        patch_size=8,
        timm_args=dict(embed_dim=128, depth=5, num_heads=4),
        pretrained=False,
        num_queries=10,
        num_blocks=2,
    ),
    panoptic_head=dict(
        num_things_classes=5,
        # A mask has 16 x 16 cells.
        criterion=dict(num_points=784),
    ),
    test_cfg=dict(panoptic_on=False, instance_on=True),
)
# 4,000 scenes / 16 = 250 iterations an epoch; 12 epochs.
train_cfg = dict(max_iters=3000, val_interval=500)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=500, save_best='coco/segm_mAP', rule='greater'),
)
