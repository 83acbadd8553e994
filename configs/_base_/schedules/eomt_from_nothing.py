# A small network from a random start, as the demos train it.
_base_ = './eomt.py'
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3, betas=(0.9, 0.98)),
    # From a random start all blocks learn alike, and the gradients are honest.
    paramwise_cfg=dict(decay_rate=1.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = dict(warmup=(30, 60))
