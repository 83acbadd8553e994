# COCO 2017 instances, 80 classes, 1280 x 1280; see coco_instance.py.
_base_ = './coco_instance.py'
crop_size = (1280, 1280)
train_pipeline = [
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
    dict(type='eomt_mm.LoadInstanceAnnotations'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
