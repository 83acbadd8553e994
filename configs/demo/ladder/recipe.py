# What all steps of the ladder in miniature share: the scenes, the length of a training
# and its optimiser. Only the models differ; they are in step0_*.py to step5_*.py.
_base_ = [
    '../../_base_/datasets/scenes_panoptic.py',
    '../../_base_/schedules/eomt.py',
    '../../_base_/default_runtime_det.py',
]
# Those of configs/demo/eomt_scenes_panoptic.py.
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3, betas=(0.9, 0.98)),
    paramwise_cfg=dict(decay_rate=1.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = dict(warmup=(30, 60))
# 4,000 scenes / 16 = 250 iterations an epoch; 3 epochs.
train_cfg = dict(max_iters=750, val_interval=750)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=250, max_keep_ckpts=2)
)
# PQ of segments, and the mIoU of a class for every pixel.
val_evaluator = [
    {{_base_.val_evaluator}},
    dict(type='SemSegMetric', iou_metrics=['mIoU']),
]
test_evaluator = val_evaluator
