"""MMEngine's Python style: classes as types, `read_base`, no default scope."""

import subprocess
import sys

import pytest

BASE = """
from mmcv.transforms import LoadImageFromFile, RandomFlip
from mmengine.dataset import DefaultSampler, InfiniteSampler, RepeatDataset
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.engine.hooks import SegVisualizationHook
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder, FCNHead, ResNet, SegDataPreProcessor
from mmseg.visualization import SegLocalVisualizer
from torch.optim import SGD

default_scope = None
data_root = {data_root!r}
norm_cfg = dict(type='BN')
meta = dict(classes=('left', 'right', 'corner'))
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(type=SegDataPreProcessor, mean=None, std=None,
                           bgr_to_rgb=True, size=(32, 32)),
    backbone=dict(type=ResNet, depth=18, base_channels=4, norm_cfg=norm_cfg),
    decode_head=dict(type=FCNHead, in_channels=32, channels=8, num_convs=1,
                     num_classes=3, norm_cfg=norm_cfg),
    test_cfg=dict(mode='whole'))
pipeline = [dict(type=LoadImageFromFile),
            dict(type=LoadAnnotations, reduce_zero_label=True),
            dict(type=PackSegInputs)]
dataset = dict(type=BaseSegDataset, data_root=data_root, metainfo=meta,
               reduce_zero_label=True, img_suffix='.jpg', pipeline=pipeline,
               data_prefix=dict(img_path='images/validation',
                                seg_map_path='annotations/validation'))
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=True,
    sampler=dict(type=InfiniteSampler, shuffle=True),
    dataset=dict(type=RepeatDataset, times=2, dataset=dataset))
test_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dataset)
val_dataloader = test_dataloader
val_evaluator = dict(type=IoUMetric, iou_metrics=['mIoU'])
test_evaluator = val_evaluator
train_cfg = dict(type=IterBasedTrainLoop, max_iters=2, val_interval=100)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01))
default_hooks = dict(
    logger=dict(type=LoggerHook, interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type=CheckpointHook, by_epoch=False, interval=1),
    visualization=dict(type=SegVisualizationHook))
log_processor = dict(by_epoch=False)
visualizer = dict(type=SegLocalVisualizer, vis_backends=[dict(type='LocalVisBackend')])
"""
LEAF = """
from mmengine.config import read_base
from mmengine.runner import EpochBasedTrainLoop

with read_base():
    from .base import *

train_cfg.update(dict(type=EpochBasedTrainLoop, max_epochs=1))
"""


@pytest.fixture
def lazy(tmp_path, ade_root):
    folder = tmp_path / 'configs'
    folder.mkdir()
    (folder / 'base.py').write_text(BASE.replace('{data_root!r}', repr(str(ade_root))))
    (folder / 'leaf.py').write_text(LEAF)
    return folder / 'leaf.py'


def test_training_test_and_pictures(tool, lazy, tmp_path):
    runner = tool('train').main([str(lazy), '--work-dir', str(tmp_path / 'run')])
    assert (runner.epoch, runner.iter) == (1, 4)
    checkpoint = str(tmp_path / 'run/epoch_1.pth')
    for extra in ([], ['--tta'], ['--show-dir', str(tmp_path / 'show')]):
        argv = [str(lazy), checkpoint, '--work-dir', str(tmp_path / 'test'), *extra]
        assert 0 <= tool('test').main(argv)['mIoU'] <= 100
    assert len(list((tmp_path / 'show').glob('**/*.png'))) == 4
    panels = tool('analysis_tools/show_results').main(
        [str(lazy), checkpoint, '--out', str(tmp_path / 'panels')]
    )
    assert len(panels) == 5
    tool('analysis_tools/browse_dataset').main(
        [str(lazy), '--not-show', '--output-dir', str(tmp_path / 'browsed')]
    )
    assert len(list((tmp_path / 'browsed').glob('*.png'))) == 8


def test_a_stock_panoptic_config_needs_no_more_than_the_import(tmp_path):
    """MMDet's own metric and loader, beside `custom_imports=['eomt_mm']`."""
    annotations = tmp_path / 'a.json'
    annotations.write_text('{"images": [], "annotations": [], "categories": []}')
    code = (
        'import mmdet.evaluation, mmdet.datasets.transforms as t\n'
        'from mmengine.config import Config\n'
        "Config.fromstring(\"custom_imports=dict(imports=['eomt_mm'])\", '.py')\n"
        f'mmdet.evaluation.CocoPanopticMetric({str(annotations)!r})\n'
        't.LoadPanopticAnnotations()\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
