# A small EoMT that learns to segment synthetic scenes from nothing, in minutes.
#
#   make demo
#   python tools/dataset_converters/make_scenes.py data/scenes
#   python tools/train.py configs/demo/eomt_scenes_semantic.py
_base_ = [
    '../_base_/models/eomt_vitl_semantic.py',
    '../_base_/datasets/scenes.py',
    '../_base_/schedules/eomt_from_nothing.py',
    '../_base_/default_runtime.py',
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
    decode_head=dict(
        num_classes=7,
        # A mask has 16 x 16 cells.
        criterion=dict(num_points=784),
    ),
)
# 4,000 scenes / 16 = 250 iterations an epoch; 12 epochs.
train_cfg = dict(max_iters=3000, val_interval=500)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=500, save_best='mIoU')
)
