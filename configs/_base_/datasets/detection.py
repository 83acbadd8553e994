# Shared by the panoptic and instance datasets: steps of pipelines, and loaders.
#
# Another data root: `--cfg-options data_root=DIR` with this package's tools. Elsewhere
# override each `data_root`, `ann_file` and `seg_prefix` of the dataset: the variable is
# copied into them when its file is read.
# Another crop size, in a config that inherits that file:
#   from eomt_mm.crop_size import set_crop_size
#   set_crop_size(_base_, (896, 896))
crop_size = (640, 640)
# Pillow raises on a truncated file.
load_image = dict(type='LoadImageFromFile', imdecode_backend='pillow')
augment = [
    dict(type='RandomFlip', prob=0.5),
    dict(type='eomt_mm.ScaleJitter', size=crop_size, scale_range=(0.1, 2.0)),
    dict(type='eomt_mm.PadAndCrop', size=crop_size),
]
# The image alone: results are compared at the original size.
resize = dict(type='eomt_mm.FitInside', size=crop_size)
pack = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
)
train_dataloader = dict(
    batch_size=4,  # on 4 GPUs: 16 in all
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True),
)
test_dataloader = val_dataloader
