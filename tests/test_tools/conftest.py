"""A tiny stock model, eight tiny photographs in ADE20K's layout.

The model is MMSegmentation's own: the tools are to serve any config.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TINY_CONFIG = """
default_scope = 'mmseg'
data_root = {data_root!r}
norm_cfg = dict(type='BN')
meta = dict(classes=('left', 'right', 'corner'),
            palette=[[200, 40, 40], [40, 200, 40], [40, 40, 200]])
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[128.] * 3, std=[60.] * 3,
                           bgr_to_rgb=True, size=(32, 32)),
    backbone=dict(type='ResNet', depth=18, base_channels=4, norm_cfg=norm_cfg),
    decode_head=dict(type='FCNHead', in_channels=32, channels=8, num_convs=1,
                     num_classes=3, norm_cfg=norm_cfg),
    test_cfg=dict(mode='whole'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='BaseSegDataset', data_root=data_root, metainfo=meta,
                 reduce_zero_label=True, img_suffix='.jpg', pipeline=train_pipeline,
                 data_prefix=dict(img_path='images/training',
                                  seg_map_path='annotations/training')))
test_dataloader = dict(
    batch_size=1, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='BaseSegDataset', data_root=data_root, metainfo=meta,
                 reduce_zero_label=True, img_suffix='.jpg', pipeline=test_pipeline,
                 data_prefix=dict(img_path='images/validation',
                                  seg_map_path='annotations/validation')))
val_dataloader = test_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1),
    visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=False)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends)
randomness = dict(seed=0)
env_cfg = dict(cudnn_benchmark=False)
"""


@pytest.fixture(scope='session')
def ade_root(tmp_path_factory) -> Path:
    """Four training and four validation images, 32 px, classes by position."""
    root = tmp_path_factory.mktemp('ade')
    rng = np.random.default_rng(0)
    labels = np.ones((32, 32), np.uint8)
    labels[:, 16:] = 2
    labels[:8, :8] = 3
    labels[30:] = 0  # void
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for i in range(4):
            photo = rng.integers(0, 80, (32, 32, 3)) + labels[..., None] * 40
            photo = Image.fromarray(photo.astype(np.uint8))
            photo.save(root / 'images' / split / f'{i}.jpg')
            Image.fromarray(labels).save(root / 'annotations' / split / f'{i}.png')
    return root


@pytest.fixture
def config(tmp_path, ade_root) -> Path:
    """The tiny config on the tiny data."""
    path = tmp_path / 'tiny.py'
    path.write_text(TINY_CONFIG.format(data_root=str(ade_root)))
    return path


@pytest.fixture(scope='session')
def trained(tmp_path_factory, ade_root, run_tool) -> Path:
    """A checkpoint after two iterations of `tools/train.py`."""
    folder = tmp_path_factory.mktemp('trained')
    path = folder / 'tiny.py'
    path.write_text(TINY_CONFIG.format(data_root=str(ade_root)))
    run_tool('train', path, '--work-dir', folder / 'run')
    return folder / 'run' / 'iter_2.pth'
