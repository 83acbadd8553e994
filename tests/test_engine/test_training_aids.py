"""Averaged weights and adaptive annealing, in real runs of a tiny EoMT."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from eomt_mm.engine.adaptive_annealing import BlockState, agreements, followed
from eomt_mm.errors import UserError
from eomt_mm.models import MaskHead, QueryViT
from eomt_mm.models.network import Network
from tiny_models import on_data

EMA = {'default_hooks.ema.type': 'eomt_mm.EMAHook'}
MIXED = ('eomt/eomt_vitl_ade20k', '_base_/eomt_ema')
ADAPTIVE = {'custom_hooks.0.type': 'eomt_mm.AdaptiveMaskAnnealingHook'}


def test_less_masking_as_predictions_agree():
    state = followed(BlockState(), 0.5)
    assert state.probability == 1  # the largest disagreement so far
    state = followed(state, 0.9)
    assert state.agreement == pytest.approx(0.3 * 0.9 + 0.7 * 0.5)
    assert state.probability == pytest.approx((1 - state.agreement) / 0.5)
    lower = followed(state, 0.0)
    assert lower.probability == state.probability, 'it never rises'
    assert followed(BlockState(), 1.0).probability == 0, 'a mask that changes nothing'


def test_a_long_agreement_ends_masking():
    state = followed(BlockState(), 0.2)
    probabilities = []
    for _ in range(40):
        state = followed(state, 1.0)
        probabilities.append(state.probability)
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[-1] < 1e-5


@pytest.fixture
def network():
    torch.manual_seed(0)
    vit = QueryViT(
        'vit_tiny_patch16_224',
        (64, 64),
        num_queries=4,
        num_blocks=2,
        pretrained=False,
        timm_args=dict(embed_dim=32, depth=3, num_heads=2),
        mask_probs=[0.25, 0.75],
    )
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return Network(vit, MaskHead(num_classes=3, embed_dims=32, patch_size=16))


def test_agreement_is_measured_block_by_block(network):
    images = torch.randn(2, 3, 64, 64)
    before = torch.get_rng_state()
    found = agreements(network, images)
    assert torch.equal(before, torch.get_rng_state()), 'no random number is drawn'
    assert network.backbone.mask_probs == [0.25, 0.75]
    network.backbone.mask_probs = [0.0, 0.0]
    free = network.all_predictions(images)[-1][1] > 0
    network.backbone.mask_probs = [0.0, 1.0]
    masked = network.all_predictions(images)[-1][1] > 0
    expected = (free & masked).sum() / (free | masked).sum()
    assert found[1] == pytest.approx(expected.item()) and 0 < found[1] < 1


def test_one_block_that_ignores_its_mask_agrees(network):
    torch.nn.init.zeros_(network.backbone.blocks[1].attn.proj.weight)
    torch.nn.init.zeros_(network.backbone.blocks[1].attn.proj.bias)
    found = agreements(network, torch.randn(1, 3, 64, 64))
    assert found[0] == 1 and found[1] < 1


@pytest.fixture
def train(root, run_tool, scenes, tmp_path):
    """`train('run', {...}, *argv)` trains 12 iterations on the scenes."""
    config = root / 'configs/demo/eomt_scenes_semantic.py'

    def run(name, options, *argv):
        cfg = on_data(config, scenes)
        cfg.merge_from_dict(
            {
                'model.backbone.timm_args': dict(embed_dim=32, depth=3, num_heads=4),
                'model.decode_head.criterion.num_points': 64,
                'train_dataloader.batch_size': 2,
                'train_cfg.max_iters': 12,
                'train_cfg.val_interval': 12,
                'default_hooks.checkpoint': dict(interval=6, save_best=None),
                'param_scheduler.warmup': (1, 2),
                **options,
            }
        )
        path = tmp_path / f'{name}.py'
        cfg.dump(path)
        return run_tool('train', path, '--work-dir', tmp_path / name, *argv)

    return run


def test_the_mix_in_is_beside_any_config(root, tmp_path):
    path = tmp_path / 'averaged.py'
    bases = [str(root / f'configs/{name}.py') for name in MIXED]
    path.write_text(f'_base_ = {bases}\ndefault_hooks = dict(ema={{{{_base_.ema}}}})\n')
    cfg = Config.fromfile(path)
    assert cfg.default_hooks.ema.type == 'eomt_mm.EMAHook'
    assert cfg.default_hooks.checkpoint.save_best == 'mIoU'


def weights(path, key='state_dict'):
    return torch.load(path, map_location='cpu', weights_only=False)[key]


@pytest.mark.slow
def test_the_average_begins_where_annealing_ends(train, tmp_path):
    train('plain', {})
    runner = train('ema', EMA)
    (hook,) = [h for h in runner.hooks if type(h).__name__ == 'EMAHook']
    assert hook.begin_iter == 10 and hook.ema_model.momentum == 0.5
    before, after = (weights(tmp_path / f'ema/iter_{n}.pth') for n in (6, 12))
    early, late = (weights(tmp_path / f'plain/iter_{n}.pth') for n in (6, 12))
    for name, weight in early.items():  # the training itself is the same
        assert torch.equal(before[name], weight), name
    trained = weights(tmp_path / 'ema/iter_12.pth', 'ema_state_dict')
    changed = 0
    for name, weight in late.items():
        assert torch.equal(trained[f'module.{name}'], weight), name
        changed += not torch.equal(after[name], weight)
    assert changed > 20


@pytest.mark.slow
def test_a_run_without_average_is_resumed_with_one(train, tmp_path, caplog):
    train('run', {'default_hooks.checkpoint.max_keep_ckpts': -1})
    (tmp_path / 'run/iter_12.pth').unlink()
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/iter_6.pth'))
    train('run', EMA, '--resume')
    log = max((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'iteration 6 was saved without EMA: the average begins anew' in log
    assert 'ema_state_dict' in torch.load(
        tmp_path / 'run/iter_12.pth', weights_only=False
    )


@pytest.mark.slow
def test_adaptive_annealing_ends_at_zero_and_resumes(train, tmp_path):
    whole = train('whole', ADAPTIVE)
    scalars = whole.message_hub.log_scalars
    for block in range(2):
        values = scalars[f'train/mask_prob_{block}'].data[0]
        assert values[:2].tolist() == [1, 1]  # a sixth of the run
        assert (np.diff(values) <= 0).all() and (values[10:] == 0).all()
        measured = scalars[f'train/mask_agreement_{block}'].data[0]
        assert len(measured) == 8 and (0 <= measured).all() and (measured <= 1).all()
    train('cut', ADAPTIVE)
    (tmp_path / 'cut/iter_12.pth').unlink()
    (tmp_path / 'cut/last_checkpoint').write_text(str(tmp_path / 'cut/iter_6.pth'))
    train('cut', ADAPTIVE, '--resume')
    resumed = weights(tmp_path / 'cut/iter_12.pth')
    for name, weight in weights(tmp_path / 'whole/iter_12.pth').items():
        assert torch.equal(resumed[name], weight), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(end=13), 'after the run of 12'),
        (dict(start=1.5), 'share of the run'),
        (dict(interval=0), '1 iteration or more'),
    ],
)
def test_bad_options(train, options, expected):
    changes = {f'custom_hooks.0.{k}': v for k, v in options.items()}
    with pytest.raises(UserError, match=expected):
        train('bad', ADAPTIVE | changes)
