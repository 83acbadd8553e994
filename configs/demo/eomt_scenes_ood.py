# The demo's model out of distribution: does it know corrupted scenes, and does its
# confidence find an object kind it has never seen?
#
#   python tools/dataset_converters/make_scenes.py data/scenes --ood
#   python tools/train.py configs/demo/eomt_scenes_semantic.py
#   python tools/test.py configs/demo/eomt_scenes_ood.py CHECKPOINT \
#       --cfg-options model.test_cfg.confidence=entropy
_base_ = './eomt_scenes_semantic.py'
model = dict(test_cfg=dict(confidence='class_score'))
test_dataloader = dict(
    dataset=dict(
        type='eomt_mm.OODScenesDataset',
        data_prefix=dict(_delete_=True, img_path='', seg_map_path=''),
    )
)
test_evaluator = [
    dict(
        type='eomt_mm.ConfidenceMetric',
        prefix='in_distribution',
        sets=dict(validation='/images/validation/'),
    ),
    dict(
        type='eomt_mm.ConfidenceMetric',
        prefix='corrupted',
        sets=dict(
            noise='/ood/noise_', blur='/ood/blur_', night='/ood/night_', fog='/ood/fog_'
        ),
    ),
    dict(type='eomt_mm.OODMetric', sets=dict(unknown='/ood/unknown/')),
]
