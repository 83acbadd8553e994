"""The configs train as the paper and its authors do."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, init_default_scope

from published_schedules import PUBLISHED

ROOT = Path(__file__).parents[1]
DINOV3 = sorted(path.stem for path in (ROOT / 'configs').glob('[!_]*/*dinov3*.py'))


@pytest.mark.parametrize(
    ('name', 'schedule'),
    [
        ('eomt_vitl_ade20k', 'ade L'),
        ('eomt_vitl_cityscapes', 'cityscapes L'),
        ('eomt_vitl_coco_panoptic_640', 'coco L'),
        ('eomt_vitl_coco_instance_1280', 'coco L'),
        ('eomt_vits_coco_panoptic_640_1x', 'coco S/B 1x'),
        ('eomt_vitb_coco_panoptic_640_2x', 'coco S/B 2x'),
        ('eomt_vitg_coco_panoptic_1280', 'coco g'),
        ('eomt_vitl_ade20k_panoptic_640', 'ade L'),
        ('eomt_vitg_ade20k_panoptic_640', 'ade g'),
        ('eomt_eva02_vitl_coco_panoptic_640', 'coco L'),
        ('eomt_dinov3_vits_coco_panoptic_640_2x', 'dinov3 coco S/B 2x'),
        ('eomt_dinov3_vitb_coco_panoptic_640_2x', 'dinov3 coco S/B 2x'),
        ('eomt_dinov3_vitl_coco_panoptic_640', 'dinov3 coco L'),
        ('eomt_dinov3_vitl_coco_panoptic_1280', 'dinov3 coco L'),
        ('eomt_dinov3_vitl_coco_instance_640', 'coco L'),
        ('eomt_dinov3_vitl_coco_instance_1280', 'coco L'),
        ('eomt_dinov3_vitl_ade20k', 'dinov3 ade L'),
    ],
)
def test_annealing_is_the_published_one(name, schedule):
    cfg = Config.fromfile(ROOT / f'configs/eomt/{name}.py')
    hook, *_ = (HOOKS.build(hook) for hook in cfg.custom_hooks)
    *_, starts, ends = PUBLISHED[schedule]
    windows = hook.windows(cfg.model.backbone.num_blocks, cfg.train_cfg.max_iters)
    assert windows == list(zip(starts, ends, strict=True))


@pytest.mark.parametrize(
    ('name', 'num_queries'), [('ade20k', 100), ('coco_panoptic_640', 200)]
)
def test_the_recipe_is_the_papers(name, num_queries):
    cfg = Config.fromfile(ROOT / f'configs/eomt/eomt_vitl_{name}.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == (
        'AdamW',
        1e-4,
        0.05,
    )
    assert cfg.optim_wrapper.clip_grad.max_norm == 0.01
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 0.8
    assert tuple(cfg.param_scheduler.warmup) == (500, 1000)
    head = cfg.model.get('decode_head') or cfg.model.panoptic_head
    criterion = head.criterion
    weights = (criterion.class_weight, criterion.mask_weight, criterion.dice_weight)
    assert weights == (2, 5, 5)
    assert criterion.no_object_weight == 0.1
    assert criterion.num_points == 12544
    assert cfg.model.backbone.num_queries == num_queries


@pytest.mark.parametrize('name', DINOV3)
def test_the_recipe_of_dinov3_is_the_authors(name):
    cfg = Config.fromfile(ROOT / f'configs/eomt/{name}.py')
    init_default_scope(cfg.default_scope)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay) == (2e-4, 0.05)
    assert cfg.optim_wrapper.clip_grad.max_norm == 0.01
    assert tuple(cfg.param_scheduler.warmup) == (2000, 3000)
    backbone = cfg.model.backbone
    assert backbone.num_queries == (100 if 'ade20k' in name else 200)
    assert backbone.num_blocks == (4 if 'vitl' in name else 3)

    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    scales = {
        id(parameter): group['lr'] / 2e-4
        for group in build_optim_wrapper(model, cfg.optim_wrapper).param_groups
        for parameter in group['params']
    }
    vit = model.backbone
    rates = [scales[id(block.norm1.weight)] for block in vit.blocks]
    decay = 1.0 if 'ade20k' in name else 0.8
    first = vit.depth - vit.num_blocks
    expected = [
        decay ** (vit.depth - 1 - i) if i < first else 1 for i in range(vit.depth)
    ]
    assert rates == pytest.approx(expected)
    assert scales[id(vit.cls_token)] == pytest.approx(decay ** (vit.depth - 1))
    assert scales[id(vit.norm.weight)] == scales[id(vit.queries)] == 1


def test_the_pre_trained_weights_are_those_of_the_paper():
    """Table A of the supplement; DINOv3's are those of the authors' code."""
    archs = {
        'eomt_vitl_coco_panoptic_640': 'vit_large_patch14_reg4_dinov2',
        'eomt_eva02_vitl_coco_panoptic_640': 'eva02_large_patch14_224.mim_m38m',
        'eomt_deit3_vitl_in21k_coco_panoptic_640': (
            'deit3_large_patch16_384.fb_in22k_ft_in1k'
        ),
        'eomt_deit3_vitl_in1k_coco_panoptic_640': 'deit3_large_patch16_384.fb_in1k',
        'eomt_dinov3_vitl_ade20k': 'vit_large_patch16_dinov3_qkvb.lvd1689m',
        'eomt_dinov3_vits_coco_panoptic_640_2x': (
            'vit_small_patch16_dinov3_qkvb.lvd1689m'
        ),
    }
    for name, arch in archs.items():
        model = Config.fromfile(ROOT / f'configs/eomt/{name}.py').model
        assert model.backbone.arch == arch


def test_augmentation_of_each_dataset_is_the_papers():
    """Scale range and colour jitter."""
    expected = {
        'ade20k': ([0.5, 2.0], True),
        'cityscapes': ([0.5, 2.0], True),
        'coco_panoptic_640': ([0.1, 2.0], False),
        'coco_panoptic_1280': ([0.1, 2.0], False),
        'coco_instance_640': ([0.1, 2.0], False),
        'coco_instance_1280': ([0.1, 2.0], False),
        'ade20k_panoptic_640': ([0.1, 2.0], True),
        'ade20k_panoptic_1280': ([0.1, 2.0], True),
    }
    for name, (scale_range, colour) in expected.items():
        cfg = Config.fromfile(ROOT / f'configs/eomt/eomt_vitl_{name}.py')
        pipeline = cfg.train_dataloader.dataset.pipeline
        (random,) = (t for t in pipeline if t.type == 'eomt_mm.RetryUntilLabelled')
        steps = {t.type: t for t in random.transforms}
        assert list(steps['eomt_mm.ScaleJitter'].scale_range) == scale_range, name
        assert ('eomt_mm.ColorJitter' in steps) is colour, name
        assert steps['RandomFlip'].prob == 0.5
