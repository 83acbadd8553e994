# Step (5) of the ladder in miniature, EoMT, never masked.
#
#   make reproduce
#   python tools/train.py configs/demo/ladder/step5_scenes_panoptic_never.py
_base_ = './step5_scenes_panoptic.py'
# Nothing is predicted between the blocks, so nothing is masked or supervised there.
model = dict(backbone=dict(deep_supervision=False))
custom_hooks = [
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
