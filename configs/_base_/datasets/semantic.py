# Shared by the semantic datasets: pipelines, loaders and evaluator. A dataset adds its
# type, its files and, through set_crop_size, its crop.
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# `train_dataloader.dataset.data_root=DIR`, and the same for `val_` and `test_`: the
# variable is copied into each when the file of the dataset is read.
# Another crop size, in a config that inherits that file:
#   from eomt_mm.crop_size import set_crop_size
#   set_crop_size(_base_, (896, 896))
crop_size = (512, 512)
train_pipeline = [
    # Pillow raises on a truncated file.
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.LoadSemanticAnnotations'),
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
    dict(type='eomt_mm.LoadSemanticAnnotations'),
    # The image alone: scores are taken at the original size.
    dict(type='eomt_mm.ResizeShortSide', size=crop_size[0]),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=4,  # on 4 GPUs: 16 in all
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='eomt_mm.IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
