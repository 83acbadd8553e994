# Step (5) of the ladder in miniature, EoMT, with masks annealed as they cease to matter
# instead of at the published iterations.
#
#   make reproduce ARGS="--table adaptive"
#   python tools/train.py configs/demo/ladder/step5_scenes_panoptic_adaptive.py
_base_ = './step5_scenes_panoptic.py'
custom_hooks = [
    dict(type='eomt_mm.AdaptiveMaskAnnealingHook'),
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
