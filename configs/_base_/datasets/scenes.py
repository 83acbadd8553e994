# Synthetic scenes of 64 x 64 pixels, 7 classes. Write them first:
#   python tools/dataset_converters/make_scenes.py data/scenes
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# `train_dataloader.dataset.data_root=DIR`, and the same for `val_` and `test_`: the
# variable is copied into each when this file is read.
dataset_type = 'eomt_mm.ScenesDataset'
data_root = 'data/scenes/ADEChallengeData2016'
crop_size = (64, 64)
# The scenes have the size of the crop, and colours at random: flipping is enough.
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadAnnotations'),
    dict(type='eomt_mm.CheckLabelSize'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.DecodeSixteenBit'),
    dict(type='eomt_mm.ResizeShortSide', size=crop_size[0]),
    dict(type='LoadAnnotations'),
    dict(type='eomt_mm.CheckLabelSize'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
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
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
