# Step (3) of the ladder in miniature, without multi-scale features.
#
#   make reproduce
#   python tools/train.py configs/demo/ladder/step3_scenes_panoptic.py
_base_ = './step2_scenes_panoptic.py'
model = dict(
    neck=dict(strides=(4, 8)),
    panoptic_head=dict(num_transformer_feat_level=1),
)
