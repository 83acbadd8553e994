"""Which configs the miniature trains, and what it quotes."""

import re

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from measuring.reproduction.plan import DEFAULT, TABLES, configs


@pytest.fixture(scope='module')
def ladder(root):
    """The configs in miniature by path."""
    return {name: Config.fromfile(root / name) for name in configs(DEFAULT)}


def full_config(root, name):
    """Step (5) is EoMT itself, among its own configs."""
    path = root / 'configs/ladder' / name
    return (
        path if path.exists() else root / 'configs/eomt' / name.replace('step5', 'eomt')
    )


def state_names(cfg):
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    return {name: value.shape for name, value in model.state_dict().items()}


def test_both_tables_share_their_trainings():
    both = configs(DEFAULT)
    assert len(both) == 7
    masked, free = 'step4_scenes_panoptic', 'step5_scenes_panoptic'
    tests = {
        name.split('/')[-1].removesuffix('.py'): [test.split('/')[-1] for test in tests]
        for name, tests in both.items()
    }
    assert tests[masked] == [f'{masked}.py', f'{free}.py']
    assert tests[free] == tests[f'{free}_never'] == [f'{free}.py']
    assert configs(['annealing']).keys() < both.keys()


def test_only_the_models_differ(ladder):
    one, *others = ladder.values()
    of_models = ('model', 'custom_hooks', 'patch_size', 'dims')
    for cfg in others:
        for key in one.keys() | cfg.keys():
            if key not in of_models and not key.startswith('mask2former'):
                assert cfg.get(key) == one.get(key), key
        shared = ('arch', 'img_size', 'patch_size', 'timm_args', 'pretrained')
        for key in shared:
            assert cfg.model.backbone[key] == one.model.backbone[key]
        assert cfg.model.test_cfg == one.model.test_cfg
    optimizer = one.optim_wrapper.optimizer
    assert (optimizer.lr, tuple(optimizer.betas)) == (1.5e-3, (0.9, 0.98))


def test_steps_are_those_of_the_ladder(root, ladder):
    """Part by part the types of configs/ladder."""
    for name, cfg in ladder.items():
        stem = name.split('/')[-1].replace('scenes_panoptic', 'vitl_coco_panoptic_640')
        large = Config.fromfile(full_config(root, stem))
        assert cfg.custom_hooks == large.custom_hooks, name
        for part in ('backbone', 'neck', 'panoptic_head'):
            kinds = {(c.model.get(part) or {}).get('type') for c in (cfg, large)}
            assert len(kinds) == 1, (name, part)
        heads = [c.model.panoptic_head for c in (cfg, large)]
        levels = [head.get('num_transformer_feat_level') for head in heads]
        decoders = [head.get('pixel_decoder', {}).get('type') for head in heads]
        assert levels[0] == levels[1] and decoders[0] == decoders[1]
        assert [
            bool(sum(c.model.backbone.get('mask_probs', [0]))) for c in (cfg, large)
        ] == [stem.startswith('step4')] * 2
        assert (
            len({c.model.backbone.get('deep_supervision') for c in (cfg, large)}) == 1
        )


def test_models_out_of_distribution_differ_in_nothing_else(root):
    zero, five = (Config.fromfile(root / name) for name in configs(['ood']))
    of_models = ('model', 'custom_hooks', 'patch_size', 'dims')
    for key in zero.keys() | five.keys():
        if key not in of_models and not key.startswith('mask2former'):
            assert zero.get(key) == five.get(key), key
    for key in ('arch', 'img_size', 'patch_size', 'timm_args', 'pretrained'):
        assert zero.model.backbone[key] == five.model.backbone[key]
    assert zero.model.test_cfg == five.model.test_cfg
    demo = Config.fromfile(root / 'configs/demo/eomt_scenes_ood.py')
    assert demo.test_evaluator == zero.test_evaluator
    assert demo.test_dataloader == zero.test_dataloader


def test_quoted_scores_out_of_distribution_are_those_of_the_full_configs(root):
    paths = ('ladder/step0_vitl_bravo', 'eomt/eomt_vitl_bravo')
    for row, path in zip(TABLES['ood'].rows, paths, strict=True):
        text = ' '.join((root / f'configs/{path}.py').read_text().split())
        assert f'distribution {row.quoted["mIoU out of distribution"]} (quoted' in text
        assert f'objects {row.quoted["AUPRC of unknown objects"]} (quoted' in text
        large = (root / f'configs/{path.replace("bravo", "cityscapes")}.py').read_text()
        assert f'mIoU {row.quoted["mIoU in distribution"]} (quoted' in large


def test_masked_weights_fit_the_unmasked_model(ladder):
    """The second row of Table 7 is one training tested twice."""
    for train, tests in configs(['annealing']).items():
        for test in tests:
            assert state_names(ladder[train]) == state_names(ladder[test])


def test_quoted_scores_are_those_of_the_full_configs(root):
    for row in TABLES['ladder'].rows:
        step = row.names[0][1]
        name = f'step{step}_vitl_coco_panoptic_640.py'
        text = full_config(root, name).read_text()
        assert f'PQ {row.quoted["PQ"]} (quoted' in text
        millions = (
            int(re.search(r'([\d,]+) parameters', text)[1].replace(',', '')) / 1e6
        )
        assert abs(millions - row.quoted['parameters (M)']) < 1
    scores = [row.quoted['PQ'] for row in TABLES['annealing'].rows]
    assert scores == [56.2, 27.4, 53.2, 56.0]
