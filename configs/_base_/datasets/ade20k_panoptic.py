# ADE20K panoptic, 100 + 50 classes,
# https://groups.csail.mit.edu/vision/datasets/ADE20K
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# override each `data_root`, `ann_file` and `seg_prefix` below: the variable is copied
# into them when this file is read.
# Another crop size, in a config that inherits this one:
#   from eomt_mm.crop_size import set_crop_size
#   set_crop_size(_base_, (896, 896))
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
