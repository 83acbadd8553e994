# COCO 2017 instances, 80 classes, https://cocodataset.org
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# override each `data_root`, `ann_file` and `seg_prefix` below: the variable is copied
# into them when this file is read.
# Another crop size, in a config that inherits this one:
#   from eomt_mm.crop_size import set_crop_size
#   set_crop_size(_base_, (896, 896))
_base_ = './instance.py'
dataset_type = 'eomt_mm.CocoInstanceDataset'
data_root = 'data/coco'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017'),
        # 1,021 images have no instance.
        filter_cfg=dict(filter_empty_gt=True),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017'),
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + '/annotations/instances_val2017.json')
test_evaluator = val_evaluator
