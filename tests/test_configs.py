"""Every config loads, builds and says what its header says."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS, TRANSFORMS

from eomt_mm.engine.mask_annealing import annealing_windows

PARAMETERS = {
    'eomt_vitl_ade20k': 316_020_887,
    'eomt_vitl_cityscapes': 319_032_340,
}


def leaves(root):
    configs = sorted((root / 'configs').glob('[!_]*/*.py'))
    assert len(configs) >= 7
    return configs


@pytest.fixture(params=range(7))
def config(request, root):
    return leaves(root)[request.param]


def test_every_config_is_tested(root):
    assert len(leaves(root)) == 7, 'set the range of the fixture above'


def test_config_builds(config):
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    count = sum(p.numel() for p in model.parameters())
    assert count == PARAMETERS.get(config.stem, count)
    stated = re.search(r'([\d,.]+)( M)? parameters', config.read_text())
    if stated:
        exact = int(stated[1].replace(',', '')) if not stated[2] else None
        assert exact in (None, count)
        assert not stated[2] or round(count / 1e6, 2) == float(stated[1])

    # The sizes of pipeline, preprocessor and network are written in three places.
    size = model.backbone.img_size
    assert tuple(model.data_preprocessor.size) == size == tuple(cfg.crop_size)
    resize = next(t for t in cfg.test_pipeline if t.type == 'eomt_mm.ResizeShortSide')
    assert resize.size == size[0]
    assert model.decode_head.embed_dims == model.backbone.embed_dims
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.test_pipeline):
        for transform in pipeline:
            TRANSFORMS.build(transform)


def test_header_says_how_to_launch(config):
    text = config.read_text()
    assert text.startswith('#')
    assert f'tools/train.py configs/{config.parent.name}/{config.name}' in text or (
        f'tools/dist_train.sh configs/{config.parent.name}/{config.name}' in text
    )


@pytest.mark.parametrize(
    ('name', 'starts', 'ends'),
    [
        (
            'eomt_vitl_ade20k',
            [6520, 13040, 19560, 26080],
            [13040, 19560, 26080, 32600],
        ),
        ('eomt_vitl_cityscapes', [3317, 6634, 9951, 13268], [6634, 9951, 13268, 16585]),
    ],
)
def test_annealing_is_the_published_one(root, name, starts, ends):
    cfg = Config.fromfile(root / f'configs/eomt/{name}.py')
    windows = annealing_windows(cfg.model.backbone.num_blocks, cfg.train_cfg.max_iters)
    assert windows == list(zip(starts, ends, strict=True))


def test_the_recipe_is_the_papers(root):
    cfg = Config.fromfile(root / 'configs/eomt/eomt_vitl_ade20k.py')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == (
        'AdamW',
        1e-4,
        0.05,
    )
    assert cfg.optim_wrapper.clip_grad.max_norm == 0.01
    assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 0.8
    assert tuple(cfg.param_scheduler.warmup) == (500, 1000)
    criterion = cfg.model.decode_head.criterion
    weights = (criterion.class_weight, criterion.mask_weight, criterion.dice_weight)
    assert weights == (2, 5, 5)
    assert criterion.no_object_weight == 0.1
    assert criterion.num_points == 12544
    assert cfg.model.backbone.num_queries == 100
