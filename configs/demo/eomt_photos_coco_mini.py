# A small EoMT that learns a handful of COCO photographs by heart, from nothing: a check
# of the whole path on real images, not a model. It is tested on the photographs it was
# trained on, for panoptic quality; 133 classes. The same checkpoint is tested for
# instances with eomt_photos_coco_mini_instance.py.
#
#   python tools/train.py configs/demo/eomt_photos_coco_mini.py \
#       --cfg-options data_root=DIR
#
# DIR has COCO's layout, with val2017 and the panoptic and instance annotations of it.
# About an hour on 2 idle cores. Measured: PQ 78.2 and segm AP 60.9 on 22 photographs
# after 1000 iterations, where the run was stopped; not yet run to its end.
_base_ = [
    '../_base_/models/eomt_vitl_panoptic.py',
    '../_base_/datasets/coco_panoptic.py',
    '../_base_/schedules/eomt_from_nothing.py',
    '../_base_/default_runtime_det.py',
]
from eomt_mm.crop_size import set_crop_size

set_crop_size(_base_, (384, 384))
data_root = 'data/coco'
model = dict(
    backbone=dict(
        arch='vit_tiny_patch16_224',
        img_size={{_base_.crop_size}},
        timm_args=dict(embed_dim=256, depth=6, num_heads=4),
        pretrained=False,
        num_queries=100,
        num_blocks=2,
    ),
    panoptic_head=dict(num_things_classes=80, num_stuff_classes=53),
    test_cfg=dict(panoptic_on=True, instance_on=True),
)
# Trained as it is tested: the whole photograph, and nothing else.
train_pipeline = [
    {{_base_.load_image}},
    {{_base_.load_annotations}},
    dict(
        type='eomt_mm.RetryUntilLabelled',
        transforms=[
            dict(
                type='eomt_mm.ScaleJitter',
                size={{_base_.crop_size}},
                scale_range=(1.0, 1.0),
            ),
            dict(type='eomt_mm.PadAndCrop', size={{_base_.crop_size}}),
        ],
    ),
    dict(type='PackDetInputs'),
]
photos = dict(
    ann_file='annotations/panoptic_val2017.json',
    data_prefix=dict(img='val2017', seg='annotations/panoptic_val2017'),
)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(pipeline=train_pipeline, **photos),
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = dict(warmup=(20, 40))
train_cfg = dict(max_iters=2000, val_interval=200)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=200, save_best='coco_panoptic/PQ', rule='greater'),
)
