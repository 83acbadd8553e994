# EoMT-L (DINOv2) on COCO panoptic, 133 classes, 1280 x 1280.
#
#   tools/dist_train.sh configs/eomt/eomt_vitl_coco_panoptic_1280.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vitl_coco_panoptic_1280.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 58.3 (quoted, arXiv 2503.19108 Table 4; not
# measured with this code). 321,610,886 parameters.
_base_ = './eomt_vitl_coco_panoptic_640.py'
crop_size = (1280, 1280)
model = dict(data_preprocessor=dict(size=crop_size), backbone=dict(img_size=crop_size))
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.DecodeSixteenBit'),
    dict(type='eomt_mm.LoadPanopticAnnotations'),
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
    dict(type='eomt_mm.LoadPanopticAnnotations'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
