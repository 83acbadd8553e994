# COCO 2017 instances, 80 classes, https://cocodataset.org
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# override each `data_root`, `ann_file` and `seg_prefix` below: the variable is copied
# into them when this file is read.
# Another crop size: a file that inherits this one and sets the `size` of ScaleJitter,
# PadAndCrop and FitInside, as coco_panoptic_1280.py does; the model follows crop_size.
dataset_type = 'eomt_mm.CocoInstanceDataset'
data_root = 'data/coco'
crop_size = (640, 640)
train_pipeline = [
    # Pillow raises on a truncated file.
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.DecodeSixteenBit'),
    dict(type='eomt_mm.LoadInstanceAnnotations'),
    dict(
        type='eomt_mm.RetryUntilLabelled',
        transforms=[
            dict(type='RandomFlip', prob=0.5),
            dict(type='eomt_mm.ScaleJitter', size=crop_size, scale_range=(0.1, 2.0)),
            dict(type='eomt_mm.PadAndCrop', size=crop_size),
        ],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.DecodeSixteenBit'),
    dict(type='eomt_mm.FitInside', size=crop_size),
    # After the resizing: results are compared at the original size.
    dict(type='eomt_mm.LoadInstanceAnnotations'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,  # on 4 GPUs: 16 in all
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017'),
        # 1,021 images have no instance.
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

# The boxes are those around the masks: `segm` is the score.
val_evaluator = dict(
    type='eomt_mm.CocoMetric',
    ann_file=data_root + '/annotations/instances_val2017.json',
    metric='segm',
)
test_evaluator = val_evaluator
