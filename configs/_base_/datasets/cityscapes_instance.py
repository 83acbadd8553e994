# Cityscapes instances, 8 classes, https://www.cityscapes-dataset.com
#
# Another data root or crop size: see detection.py.
# The files are those of the semantic config and, beside them, what
# tools/dataset_converters/cityscapes_panoptic.py writes.
_base_ = './instance.py'
from eomt_mm.crop_size import set_crop_size

# The whole image, as it is.
set_crop_size(_base_, (1024, 2048))
dataset_type = 'eomt_mm.CityscapesInstanceDataset'
data_root = 'data/cityscapes'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='cityscapes_instance_train.json',
        data_prefix=dict(img='leftImg8bit/train'),
        # Images without an instance teach nothing.
        filter_cfg=dict(filter_empty_gt=True),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='cityscapes_instance_val.json',
        data_prefix=dict(img='leftImg8bit/val'),
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + '/cityscapes_instance_val.json')
test_evaluator = val_evaluator
