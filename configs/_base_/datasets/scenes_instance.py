# Synthetic scenes of 64 x 64 pixels, 5 classes of things. Write them first:
#   python tools/dataset_converters/make_scenes.py data/scenes
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# override each `data_root`, `ann_file` and `seg_prefix` below: the variable is copied
# into them when this file is read.
dataset_type = 'eomt_mm.ScenesInstanceDataset'
data_root = 'data/scenes/ADEChallengeData2016'
crop_size = (64, 64)
# The scenes have the size of the crop, and colours at random: flipping is enough.
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.LoadInstanceAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.FitInside', size=crop_size),
    # After the resizing: results are compared at the original size.
    dict(type='eomt_mm.LoadInstanceAnnotations'),
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
        ann_file='instances_training.json',
        data_prefix=dict(img='images/training'),
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
        ann_file='instances_validation.json',
        data_prefix=dict(img='images/validation'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# The boxes are those around the masks: `segm` is the score.
val_evaluator = dict(
    type='eomt_mm.CocoMetric',
    ann_file=data_root + '/instances_validation.json',
    metric='segm',
)
test_evaluator = val_evaluator
