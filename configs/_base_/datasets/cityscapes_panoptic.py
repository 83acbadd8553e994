# Cityscapes panoptic, 8 + 11 classes, https://www.cityscapes-dataset.com
#
# Another data root or crop size: see detection.py.
# The files are those of the semantic config and, beside them, what
# tools/dataset_converters/cityscapes_panoptic.py writes.
_base_ = './panoptic.py'
from eomt_mm.crop_size import set_crop_size

# The whole image, as it is.
set_crop_size(_base_, (1024, 2048))
dataset_type = 'eomt_mm.CityscapesPanopticDataset'
data_root = 'data/cityscapes'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='cityscapes_panoptic_train.json',
        data_prefix=dict(img='leftImg8bit/train', seg='cityscapes_panoptic_train'),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='cityscapes_panoptic_val.json',
        data_prefix=dict(img='leftImg8bit/val', seg='cityscapes_panoptic_val'),
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    ann_file=data_root + '/cityscapes_panoptic_val.json',
    seg_prefix=data_root + '/cityscapes_panoptic_val',
)
test_evaluator = val_evaluator
