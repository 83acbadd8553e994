# What all steps of the ladder in miniature share: the scenes, the length of a training
# and its optimiser. Only the models differ; they are in step0_*.py to step5_*.py.
_base_ = [
    '../../_base_/datasets/scenes_panoptic.py',
    '../../_base_/schedules/eomt_from_nothing.py',
    '../../_base_/default_runtime_det.py',
]
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
