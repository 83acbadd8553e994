# Tests what eomt_photos_coco_mini.py has trained for instance AP: the same network and
# weights, COCO's instance annotations of the same photographs.
#
#   python tools/train.py configs/demo/eomt_photos_coco_mini.py \
#       --cfg-options data_root=DIR
#   python tools/test.py configs/demo/eomt_photos_coco_mini_instance.py CHECKPOINT \
#       --cfg-options data_root=DIR
_base_ = './eomt_photos_coco_mini.py'
data_root = 'data/coco'
model = dict(test_cfg=dict(panoptic_on=False, instance_on=True))
val_dataloader = dict(
    dataset=dict(
        # All 133 classes: the first 80 are the things of COCO's instances.
        type='eomt_mm.CocoInstanceDataset',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(_delete_=True, img='val2017'),
        pipeline=[
            {{_base_.load_image}},
            dict(type='eomt_mm.LoadInstanceAnnotations'),
            {{_base_.resize}},
            {{_base_.pack}},
        ],
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='eomt_mm.CocoMetric',
    ann_file=data_root + '/annotations/instances_val2017.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator
