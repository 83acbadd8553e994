# Synthetic scenes of 64 x 64 pixels, 5 + 2 classes. Write them first:
#   python tools/dataset_converters/make_scenes.py data/scenes
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# override each `data_root`, `ann_file` and `seg_prefix` below: the variable is copied
# into them when this file is read.
dataset_type = 'eomt_mm.ScenesPanopticDataset'
data_root = 'data/scenes/ADEChallengeData2016'
crop_size = (64, 64)
# The scenes have the size of the crop, and colours at random: flipping is enough.
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.LoadPanopticAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.FitInside', size=crop_size),
    # After the resizing: results are compared at the original size.
    dict(type='eomt_mm.LoadPanopticAnnotations'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
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
        ann_file='panoptic_training.json',
        data_prefix=dict(img='images/training', seg='panoptic/training'),
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
        ann_file='panoptic_validation.json',
        data_prefix=dict(img='images/validation', seg='panoptic/validation'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='eomt_mm.CocoPanopticMetric',
    ann_file=data_root + '/panoptic_validation.json',
    seg_prefix=data_root + '/panoptic/validation',
)
test_evaluator = val_evaluator
