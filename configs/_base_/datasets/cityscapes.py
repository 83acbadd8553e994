# Cityscapes, 19 classes, https://www.cityscapes-dataset.com
#
# Another data root or crop size: see semantic.py.
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
