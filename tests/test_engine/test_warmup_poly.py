import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

from eomt_mm.engine import two_stage_factor
from eomt_mm.engine.warmup_poly import warmup_lengths
from eomt_mm.errors import UserError


def expected_lr(base, k, total, w1, w2, backbone):
    """The paper's two curves, written down once more."""
    if backbone:
        if k < w1:
            return 0
        if k < w1 + w2:
            return base * (k - w1) / w2
        return base * (1 - (k - w1 - w2) / (total - w1 - w2)) ** 0.9
    if k < w1:
        return base * k / w1
    return base * (1 - (k - w1) / (total - w1)) ** 0.9


def make(model, end=60, warmup=(5, 10), **settings):
    wrapper = build_optim_wrapper(
        model,
        {
            'constructor': 'eomt_mm.LayerDecayConstructor',
            'optimizer': {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05},
        },
    )
    scheduler = PARAM_SCHEDULERS.build(
        {
            'type': 'eomt_mm.TwoStageWarmupPolyLR',
            'warmup': warmup,
            'end': end,
            'by_epoch': False,
            **settings,
        },
        default_args={'optimizer': wrapper, 'epoch_length': 7},
    )
    return wrapper, scheduler


def test_every_parameter_at_every_step(toy_model):
    model = toy_model()
    wrapper, scheduler = make(model)
    name_of = {id(p): name for name, p in model.named_parameters()}
    for k in range(60):
        for group in wrapper.optimizer.param_groups:
            for parameter in group['params']:
                name = name_of[id(parameter)]
                parts = name.split('.')
                backbone = parts[0] == 'backbone' and parts[1] != 'queries'
                scale = 1.0
                if backbone and parts[1] == 'blocks':
                    scale = 0.8 ** (5 - int(parts[2]))
                elif backbone and parts[1] != 'norm':
                    scale = 0.8**5
                expected = expected_lr(1e-4 * scale, k, 60, 5, 10, backbone)
                assert group['lr'] == pytest.approx(expected, rel=1e-12), (name, k)
        # What MMEngine logs as base_lr is the head's rate.
        head = expected_lr(1e-4, k, 60, 5, 10, False)
        assert wrapper.get_lr()['base_lr'][0] == pytest.approx(head, rel=1e-12)
        backbone = expected_lr(1e-4, k, 60, 5, 10, True)
        assert wrapper.get_lr()['lr'][0] == pytest.approx(backbone, rel=1e-12)
        wrapper.step()
        scheduler.step()
    assert all(group['lr'] == 0 for group in wrapper.param_groups)
    scheduler.step()
    assert all(group['lr'] == 0 for group in wrapper.param_groups)


@pytest.mark.parametrize('warmup', [(500, 1000), (2000, 3000)])
def test_published_lengths(warmup):
    w1, w2 = warmup
    steps = (0, 1, w1 - 1, w1, w1 + 1, w1 + w2 - 1, w1 + w2, w1 + w2 + 1, 39119)
    for k in steps:
        for backbone in (False, True):
            factor = two_stage_factor(k, 39120, warmup, 0.9, backbone)
            expected = expected_lr(1.0, k, 39120, w1, w2, backbone)
            assert factor == pytest.approx(expected, rel=1e-12)


def test_no_warm_up():
    assert two_stage_factor(0, 10, (0, 0), 0.9, True) == 1
    assert two_stage_factor(0, 10, (0, 0), 0.9, False) == 1


def test_state_continues_under_the_new_schedule(toy_model):
    wrapper, scheduler = make(toy_model())
    for _ in range(20):
        wrapper.step()
        scheduler.step()
    state = scheduler.state_dict()
    assert set(state) == {'last_step', '_global_step', '_last_value', 'base_values'}

    same, resumed = make(toy_model())
    resumed.load_state_dict(state)
    assert resumed.last_step == 20
    assert [g['lr'] for g in same.param_groups] == [
        g['lr'] for g in wrapper.param_groups
    ]
    longer, resumed = make(toy_model(), end=600)
    resumed.load_state_dict(state)
    assert longer.get_lr()['lr'][0] == expected_lr(1e-4, 20, 600, 5, 10, True)


def test_runner_fills_in_the_length(toy_config, toy_run):
    runner = toy_run(toy_config(max_iters=12))
    expected = {
        'lr': [expected_lr(1e-2, k, 12, 2, 3, True) for k in range(12)],
        'base_lr': [expected_lr(1e-2, k, 12, 2, 3, False) for k in range(12)],
    }
    for name, values in expected.items():
        logged = runner.message_hub.get_scalar(f'train/{name}').data[0]
        assert list(logged) == pytest.approx(values, rel=1e-12)


def test_a_run_too_short_scales_the_warm_up(toy_model):
    for end, scaled in ((15, (2, 5)), (5, (0, 1)), (2, (0, 0))):
        wrapper, scheduler = make(toy_model(), end=end)
        assert scheduler.warmup == scaled
        assert wrapper.get_lr()['base_lr'][0] == (0 if scaled[0] else 1e-4)
    assert warmup_lengths((5, 10), 16) == (5, 10)


def test_fractions_of_the_run():
    assert warmup_lengths((0.01, 0.02), 1000) == (10, 20)
    assert warmup_lengths((0.0, 0.5), 1000) == (0, 500)
    for wrong in ((-1, 5), (1.5, 5), (-0.1, 0.1)):
        with pytest.raises(UserError, match='fractions of the run'):
            warmup_lengths(wrong, 100)


def test_config_errors(toy_model, toy_config, toy_run):
    with pytest.raises(UserError, match='by_epoch=False'):
        make(toy_model(), by_epoch=True)
    with pytest.raises(UserError, match='leave `end` out'):
        make(toy_model(), end=None)
    config = toy_config()
    config.param_scheduler = Config(
        {'s': [{'type': 'eomt_mm.TwoStageWarmupPolyLR', 'warmup': (2, 3)}]}
    ).s
    with pytest.raises(UserError, match='by_epoch=False'):
        toy_run(config)
