# COCO 2017 panoptic, 80 + 53 classes, https://cocodataset.org
#
# Another data root or crop size: see detection.py.
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
