# Weights, gradients and optimizer in shares, one for each process (docs/scale.md):
#
#   _base_ = ['./eomt_vitl_ade20k.py', '../_base_/strategies/fsdp.py']
#
# or without a file:
#
#   --cfg-options runner_type=FlexibleRunner strategy.type=eomt_mm.FSDPStrategy
runner_type = 'FlexibleRunner'
strategy = dict(
    type='eomt_mm.FSDPStrategy',
    # SHARD_GRAD_OP keeps the weights whole during a step: more memory, less traffic.
    model_wrapper=dict(sharding_strategy='FULL_SHARD'),
)
