# ADE20K, 150 classes, https://groups.csail.mit.edu/vision/datasets/ADE20K
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# `train_dataloader.dataset.data_root=DIR`, and the same for `val_` and `test_`: the
# variable is copied into each when this file is read.
# Another crop size, in a config that inherits this one:
#   from eomt_mm.crop_size import set_crop_size
#   set_crop_size(_base_, (896, 896))
_base_ = './semantic.py'
dataset_type = 'eomt_mm.ADE20KDataset'
data_root = 'data/ade/ADEChallengeData2016'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training'
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
    ),
)
test_dataloader = val_dataloader
