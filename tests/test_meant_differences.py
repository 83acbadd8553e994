"""Choices that differ from the reference on purpose; docs/parity.md lists them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from eomt_mm.datasets.ade20k_panoptic import panoptic_map
from eomt_mm.engine import two_stage_factor
from eomt_mm.models.mask_head import MaskHead

ROOT = Path(__file__).parents[1]


def test_an_instance_takes_the_pixels_that_the_label_map_gives_to_stuff():
    semantic = np.full((1, 4), 3, np.uint8)  # sky
    instance = np.zeros((1, 4, 3), np.uint8)
    instance[0, 2:] = 2, 1, 9  # a window
    ids, labels = panoptic_map(semantic, instance)
    assert sorted(np.bincount(ids.ravel()).tolist()) == [0, 2, 2]
    assert len(labels) == 2


@pytest.mark.parametrize(
    ('name', 'length', 'epochs', 'images'),
    [
        ('eomt_dinov3_vitl_ade20k', 19560, 16, 20210),
        ('eomt_vitl_ade20k', 39120, 31, 20210),
        ('eomt_vitl_coco_instance_640', 88692, 12, 117266),
        ('eomt_vitl_coco_panoptic_640', 88692, 12, 118264),
    ],
)
def test_lengths_are_those_of_the_published_annealing(name, length, epochs, images):
    cfg = Config.fromfile(ROOT / f'configs/eomt/{name}.py')
    assert cfg.train_cfg.max_iters == length
    real = epochs * (images // 16)
    warmup = tuple(cfg.param_scheduler.warmup)
    steps = range(0, min(length, real), 20)
    theirs, ours = (
        np.array([two_stage_factor(k, total, warmup, 0.9, False) for k in steps])
        for total in (real, length)
    )
    assert np.abs(theirs - ours).max() < 0.05


def test_class_logits_are_full_precision_under_autocast():
    head = MaskHead(embed_dims=8, num_classes=3)
    with torch.autocast('cpu', torch.bfloat16):
        classes, masks = head(torch.rand(1, 2, 8), torch.rand(1, 8, 4, 4))
    assert (classes.dtype, masks.dtype) == (torch.float32, torch.bfloat16)
