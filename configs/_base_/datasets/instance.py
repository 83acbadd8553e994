# Shared by the instance datasets: annotations, pipelines and evaluator. A dataset adds
# its type, its files and, through set_crop_size, its crop.
_base_ = './detection.py'
load_annotations = dict(type='eomt_mm.LoadInstanceAnnotations')
train_pipeline = [
    {{_base_.load_image}},
    load_annotations,
    dict(type='eomt_mm.RetryUntilLabelled', transforms={{_base_.augment}}),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    {{_base_.load_image}},
    load_annotations,
    {{_base_.resize}},
    {{_base_.pack}},
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# `segm` is the score. The boxes are drawn round the masks: model.test_cfg.box_from says
# round how much of them.
val_evaluator = dict(type='eomt_mm.CocoMetric', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
