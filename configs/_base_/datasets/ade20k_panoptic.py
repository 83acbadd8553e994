# ADE20K panoptic, 100 + 50 classes,
# https://groups.csail.mit.edu/vision/datasets/ADE20K
#
# Another data root or crop size: see detection.py.
# The files are those of the semantic config and, beside them, what
# tools/dataset_converters/ade20k_panoptic.py writes.
_base_ = './panoptic.py'
dataset_type = 'eomt_mm.ADE20KPanopticDataset'
data_root = 'data/ade/ADEChallengeData2016'
train_pipeline = [
    {{_base_.load_image}},
    {{_base_.load_annotations}},
    dict(
        type='eomt_mm.RetryUntilLabelled',
        transforms=[dict(type='eomt_mm.ColorJitter'), *_base_.augment],
    ),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='ade20k_panoptic_train.json',
        data_prefix=dict(img='images/training', seg='ade20k_panoptic_train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='ade20k_panoptic_val.json',
        data_prefix=dict(img='images/validation', seg='ade20k_panoptic_val'),
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    ann_file=data_root + '/ade20k_panoptic_val.json',
    seg_prefix=data_root + '/ade20k_panoptic_val',
)
test_evaluator = val_evaluator
