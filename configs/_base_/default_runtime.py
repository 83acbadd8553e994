default_scope = 'mmseg'
# Makes a missing installation of the plugin an error here, not deep in a build.
custom_imports = dict(imports=['eomt_mm'], allow_failed_imports=False)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
# Add dict(type='TensorboardVisBackend') or dict(type='WandbVisBackend') for the
# losses, learning rates and mask probabilities there.
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer'
)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
# The paper's seed. With a seed, a resumed run equals an uninterrupted one.
randomness = dict(seed=0)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='eomt_mm.CheckpointHook',
        by_epoch=False,
        interval=2000,
        max_keep_ckpts=3,
        # A checkpoint is on disk whole or not at all.
        backend_args=dict(backend='atomic_local'),
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    # Refuses a crop_size that network and training crops do not have.
    crop_size=dict(type='eomt_mm.CropSizeHook'),
    # Stops where the loss is not a number; patience=None switches it off.
    divergence=dict(type='eomt_mm.DivergenceHook', patience=20),
)
custom_hooks = [
    dict(type='eomt_mm.MaskAnnealingHook'),
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
tta_model = dict(type='eomt_mm.EoMTSegTTAModel')
