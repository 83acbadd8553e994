# A small EoMT that learns a handful of ADE20K photographs by heart, from nothing: a
# check of the whole path on real images, not a model. It is tested on the photographs
# it was trained on; 150 classes, 3.46 M parameters.
#
#   python tools/train.py configs/demo/eomt_photos_ade20k_mini.py \
#       --cfg-options data_root=DIR
#
# DIR has ADE20K's layout; its images of both splits are used, for both purposes.
_base_ = [
    '../_base_/models/eomt_vitl_semantic.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/eomt_from_nothing.py',
    '../_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        arch='vit_tiny_patch16_224',
        img_size={{_base_.crop_size}},
        timm_args=dict(embed_dim=192, depth=6, num_heads=3),
        pretrained=False,
        num_queries=50,
        num_blocks=2,
    ),
    decode_head=dict(num_classes=150),
)
# The windows of testing, at random places, and nothing else.
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.LoadSemanticAnnotations'),
    # As in testing: with antialiasing.
    dict(type='Resize', scale=(10**6, 512), keep_ratio=True, backend='pillow'),
    dict(type='eomt_mm.PadAndCrop', size={{_base_.crop_size}}),
    dict(type='PackSegInputs'),
]
# Files are found in subfolders too: both splits.
both_splits = dict(img_path='images', seg_map_path='annotations')
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_prefix=both_splits, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_prefix=both_splits)
)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(warmup=(20, 40))
train_cfg = dict(max_iters=1000, val_interval=100)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=100, save_best='mIoU')
)
