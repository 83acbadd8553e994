# Step (1) of the ladder in miniature, without ViT-Adapter.
#
#   make reproduce
#   python tools/train.py configs/demo/ladder/step1_scenes_panoptic.py
_base_ = './step0_scenes_panoptic.py'
model = dict(
    backbone=dict(type='eomt_mm.PlainViT'),
    neck=dict(type='eomt_mm.FeaturePyramid'),
)
