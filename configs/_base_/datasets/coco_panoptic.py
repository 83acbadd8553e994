# COCO 2017 panoptic, 80 + 53 classes, https://cocodataset.org
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# override each `data_root`, `ann_file` and `seg_prefix` below: the variable is copied
# into them when this file is read.
# Another crop size, in a config that inherits this one:
#   from eomt_mm.crop_size import set_crop_size
#   set_crop_size(_base_, (896, 896))
_base_ = './panoptic.py'
dataset_type = 'eomt_mm.CocoPanopticDataset'
data_root = 'data/coco'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/panoptic_train2017.json',
        data_prefix=dict(img='train2017', seg='annotations/panoptic_train2017'),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(img='val2017', seg='annotations/panoptic_val2017'),
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    ann_file=data_root + '/annotations/panoptic_val2017.json',
    seg_prefix=data_root + '/annotations/panoptic_val2017',
)
test_evaluator = val_evaluator
