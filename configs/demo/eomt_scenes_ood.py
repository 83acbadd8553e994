# The demo's model on scenes with an object kind it has never seen: does its confidence
# find it?
#
#   python tools/dataset_converters/make_scenes.py data/scenes --ood
#   python tools/train.py configs/demo/eomt_scenes_semantic.py
#   python tools/test.py configs/demo/eomt_scenes_ood.py CHECKPOINT \
#       --cfg-options model.test_cfg.confidence=entropy
_base_ = './eomt_scenes_semantic.py'
data_root = {{_base_.data_root}}
model = dict(test_cfg=dict(confidence='class_score'))
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='eomt_mm.UnknownObjectsDataset',
        layout='fishyscapes',
        img_suffix='.png',
        data_root=data_root,
        data_prefix=dict(
            img_path='ood/unknown/images', seg_map_path='ood/unknown/labels'
        ),
        metainfo=dict(
            classes=('sky', 'ground', 'disc', 'square', 'triangle', 'star', 'ring'),
            palette=[
                [142, 202, 230],
                [138, 128, 98],
                [230, 57, 70],
                [69, 105, 208],
                [67, 170, 139],
                [255, 190, 60],
                [155, 93, 229],
            ],
        ),
        test_mode=True,
        pipeline={{_base_.test_pipeline}},
    )
)
test_evaluator = dict(_delete_=True, type='eomt_mm.OODMetric')
