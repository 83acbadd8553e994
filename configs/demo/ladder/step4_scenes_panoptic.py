# Step (4) of the ladder in miniature, without Transformer decoder: EoMT with masks, in
# training and in testing.
#
#   make reproduce
#   python tools/train.py configs/demo/ladder/step4_scenes_panoptic.py
_base_ = './step5_scenes_panoptic.py'
model = dict(backbone=dict(mask_probs=[1.0] * 2))
custom_hooks = [
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
