# COCO 2017 instances, 80 classes, https://cocodataset.org
#
# Another data root or crop size: see detection.py.
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
