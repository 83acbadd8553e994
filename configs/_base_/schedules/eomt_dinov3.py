# The recipe of the authors' DINOv3 models (https://github.com/tue-mps/eomt): twice the
# learning rate, a longer warm-up, and the full rate for the blocks with queries.
_base_ = './eomt.py'
optim_wrapper = dict(
    optimizer=dict(lr=2e-4), paramwise_cfg=dict(decay_last_blocks=False)
)
param_scheduler = dict(warmup=(2000, 3000))
# default_runtime.py has custom_hooks of its own, and no two bases may set one name:
# `custom_hooks = {{_base_.dinov3_hooks}}` in a config takes these instead.
dinov3_hooks = [
    # The first block is annealed at once, in iterations: a training of 6,000 or less
    # needs `--cfg-options custom_hooks.0.first_block=None` or a shorter one.
    dict(type='eomt_mm.MaskAnnealingHook', first_block=(0, 3000)),
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
