# Gradients and optimizer in shares, by DeepSpeed (docs/scale.md):
#
#   _base_ = ['./eomt_vitl_ade20k.py', '../_base_/strategies/zero2.py']
runner_type = 'FlexibleRunner'
strategy = dict(
    type='eomt_mm.DeepSpeedStrategy',
    # AdamW is PyTorch's; the clipping of the gradient is that of `optim_wrapper`.
    config=dict(zero_allow_untested_optimizer=True),
    zero_optimization=dict(stage=2),
)
