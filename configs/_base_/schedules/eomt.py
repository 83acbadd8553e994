# The recipe of the paper's DINOv2 models; the leaf config sets train_cfg.max_iters.
# Everything below follows from it: learning rates and mask annealing end with it.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05
    ),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    constructor='eomt_mm.LayerDecayConstructor',
    paramwise_cfg=dict(decay_rate=0.8),
)
# Queries and head warm up first, then the backbone; poly decay to 0 for both.
param_scheduler = dict(
    type='eomt_mm.TwoStageWarmupPolyLR',
    warmup=(500, 1000),
    power=0.9,
    by_epoch=False,
)
train_cfg = dict(type='IterBasedTrainLoop')
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# All numbers are tuned for 16 images in a batch; --auto-scale-lr adapts lr to others.
auto_scale_lr = dict(enable=False, base_batch_size=16)
