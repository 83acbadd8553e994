# ADE20K, 150 classes, https://groups.csail.mit.edu/vision/datasets/ADE20K
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# `train_dataloader.dataset.data_root=DIR`, and the same for `val_` and `test_`: the
# variable is copied into each when this file is read.
# Another crop size: a config that inherits this one and sets the `size` of ScaleJitter,
# PadAndCrop and ResizeShortSide, and the model's; or in place, for instance
# `--cfg-options train_dataloader.dataset.pipeline.4.transforms.3.size=640`.
dataset_type = 'eomt_mm.ADE20KDataset'
data_root = 'data/ade/ADEChallengeData2016'
crop_size = (512, 512)
train_pipeline = [
    # Pillow raises on a truncated file.
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.DecodeSixteenBit'),
    dict(type='LoadAnnotations'),
    dict(type='eomt_mm.CheckLabelSize'),
    dict(
        type='eomt_mm.RetryUntilLabelled',
        transforms=[
            dict(type='eomt_mm.ColorJitter'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='eomt_mm.ScaleJitter', size=crop_size, scale_range=(0.5, 2.0)),
            dict(type='eomt_mm.PadAndCrop', size=crop_size),
        ],
    ),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.DecodeSixteenBit'),
    dict(type='eomt_mm.ResizeShortSide', size=crop_size[0]),
    # After the resizing: scores are taken at the original size.
    dict(type='LoadAnnotations'),
    dict(type='eomt_mm.CheckLabelSize'),
    dict(type='PackSegInputs'),
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
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training'
        ),
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
