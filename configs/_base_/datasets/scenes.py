# Synthetic scenes of 64 x 64 pixels, 7 classes. Write them first:
#   python tools/dataset_converters/make_scenes.py data/scenes
#
# Another data root or crop size: see semantic.py.
_base_ = './semantic.py'
from eomt_mm.crop_size import set_crop_size

set_crop_size(_base_, (64, 64))
dataset_type = 'eomt_mm.ScenesDataset'
data_root = 'data/scenes/ADEChallengeData2016'
# The scenes have the size of the crop, and colours at random: flipping is enough.
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.LoadSemanticAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training'
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
    ),
)
test_dataloader = val_dataloader
