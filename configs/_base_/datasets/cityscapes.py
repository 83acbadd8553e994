# Cityscapes, 19 classes, https://www.cityscapes-dataset.com
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# `train_dataloader.dataset.data_root=DIR`, and the same for `val_` and `test_`: the
# variable is copied into each when this file is read.
# Another crop size, in a config that inherits this one:
#   from eomt_mm.crop_size import set_crop_size
#   set_crop_size(_base_, (896, 896))
_base_ = './semantic.py'
from eomt_mm.crop_size import set_crop_size

set_crop_size(_base_, (1024, 1024))
dataset_type = 'eomt_mm.CityscapesDataset'
data_root = 'data/cityscapes/'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
    ),
)
test_dataloader = val_dataloader
