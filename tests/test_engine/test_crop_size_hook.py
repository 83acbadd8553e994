"""A crop size that MM's own tools change in the variable alone is reported."""

import logging
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS

from eomt_mm.crop_size import set_crop_size


@pytest.fixture
def run(root, caplog):
    """`run(changes)` starts a run of a config; returns what is logged."""

    def start(prepare):
        cfg = Config.fromfile(root / 'configs/eomt/eomt_vitl_coco_panoptic_640.py')
        prepare(cfg)
        hook = HOOKS.build(cfg.default_hooks.crop_size)
        logger = logging.getLogger('crop_size_hook')
        with caplog.at_level(logging.WARNING):
            hook.before_run(SimpleNamespace(cfg=cfg, logger=logger))
        return [record.getMessage() for record in caplog.records]

    return start


def test_a_half_changed_size_is_a_warning(run):
    (line,) = run(lambda cfg: cfg.merge_from_dict({'crop_size': (896, 896)}))
    assert line.startswith('crop_size is (896, 896), but model.backbone.img_size is')
    assert 'set_crop_size' in line and '\n' not in line


def test_training_crops_count_too(run):
    def shrink(cfg):
        (step,) = [
            inner
            for step in cfg.train_dataloader.dataset.pipeline
            for inner in step.get('transforms', [])
            if inner.type == 'eomt_mm.PadAndCrop'
        ]
        step.size = (320, 320)

    (line,) = run(shrink)
    assert 'eomt_mm.PadAndCrop in train is (320, 320)' in line


def test_nothing_is_said_where_all_agree(run):
    assert run(lambda cfg: None) == []
    assert run(lambda cfg: set_crop_size(cfg, 896)) == []
    assert run(lambda cfg: cfg.pop('crop_size')) == []
