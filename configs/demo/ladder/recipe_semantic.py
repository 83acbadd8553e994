# What both models out of distribution in miniature share: the scenes, the length of a
# training and its optimiser, and the test. Only the models differ; they are in
# step0_scenes_semantic.py and step5_scenes_semantic.py.
_base_ = [
    '../../_base_/datasets/scenes.py',
    '../../_base_/schedules/eomt_from_nothing.py',
    '../../_base_/default_runtime.py',
]
# 4,000 scenes / 16 = 250 iterations an epoch; 3 epochs.
train_cfg = dict(max_iters=750, val_interval=750)
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=250, max_keep_ckpts=2)
)
# The test of configs/demo/eomt_scenes_ood.py.
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
