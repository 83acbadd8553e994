import logging
from types import SimpleNamespace

import pytest
from mmengine.runner import Runner

from eomt_mm.engine import (
    MaskAnnealingHook,
    annealing_windows,
    mask_annealing,
    mask_probability,
)
from eomt_mm.errors import UserError
from published_schedules import PUBLISHED


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_schedules(name):
    num_blocks, max_iters, first_block, starts, ends = PUBLISHED[name]
    windows = annealing_windows(num_blocks, max_iters, first_block=first_block)
    assert [start for start, _ in windows] == starts
    assert [end for _, end in windows] == ends


def test_one_block_takes_the_last_window():
    assert annealing_windows(1, 600) == [(400, 500)]


def test_floats_are_fractions_and_ints_are_iterations():
    windows = annealing_windows(2, 1000, start=[0, 0.5], end=[300, 0.75])
    assert windows == [(0, 300), (500, 750)]
    # Half up, in the decimal the user wrote: 0.3 * 5 = 1.5 -> 2.
    assert annealing_windows(1, 5, start=[0.3], end=[0.5]) == [(2, 3)]


@pytest.mark.parametrize('max_iters', [1, 2, 3, 7])
def test_trial_runs_of_a_few_iterations_are_legal(max_iters):
    for start, end in annealing_windows(4, max_iters):
        assert 0 <= start <= end <= max_iters
        assert mask_probability(max_iters, start, end) == 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'start': [0.5, 0.2], 'end': [0.6, 0.8]}, 'do not increase'),
        ({'start': [0.2, 0.5], 'end': [0.8, 0.7]}, 'do not increase'),
        ({'start': [0.2, 0.5], 'end': [0.2, 0.6]}, 'must end after it starts'),
        ({'start': [0.2]}, 'one value for each of the 2'),
        ({'end': 'linear'}, "expected 'auto'"),
        ({'start': [0.2, 1.5]}, 'fraction of the training'),
        ({'start': [-0.1, 0.5]}, 'fraction of the training'),
        ({'start': [-3, 0.5]}, 'expected >= 0'),
        ({'first_block': (0, 3000)}, 'do not increase'),
        ({'first_block': (3000,)}, r'expected \(start, end\)'),
    ],
)
def test_schedules_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        annealing_windows(2, 1000, **options)


def test_probability_falls_as_published():
    values = [mask_probability(step, 0, 6) for step in range(7)]
    expected = [1, 0.8487, 0.6943, 0.5359, 0.3720, 0.1994, 0]
    assert values == pytest.approx(expected, abs=5e-5)
    assert mask_probability(9, 10, 16) == 1.0
    assert mask_probability(99, 10, 16) == 0.0


def test_run_sets_and_logs_the_probabilities(toy_config, toy_run):
    runner = toy_run(toy_config(max_iters=12))
    # Three blocks of 12 iterations: windows 2..4, 5..7, 8..10.
    half = 0.5**0.9
    expected = {
        0: [1, 1, 1, half] + [0] * 8,
        1: [1, 1, 1, 1, 1, 1, half] + [0] * 5,
        2: [1, 1, 1, 1, 1, 1, 1, 1, 1, half, 0, 0],
    }
    for block, values in expected.items():
        logged = runner.message_hub.get_scalar(f'train/mask_prob_{block}').data[0]
        assert list(logged) == pytest.approx(values)
    assert runner.model.backbone.mask_probs == [0, 0, 0]
    assert all(type(value) is float for value in runner.model.backbone.mask_probs)


def test_model_without_mask_probabilities(toy_config):
    config = toy_config()
    runner = Runner.from_cfg(config)
    del runner.model.backbone.mask_probs
    with pytest.raises(UserError, match='backbone or head has `mask_probs`'):
        runner.train()


@pytest.mark.parametrize(('iteration', 'warned'), [(5, True), (10, False)])
def test_testing_half_annealed_weights_warns_once(
    toy_config, toy_run, monkeypatch, iteration, warned
):
    config = toy_config()
    toy_run(config)
    config.load_from = f'{config.work_dir}/iter_{iteration}.pth'
    config.experiment_name += 'test'
    tester = Runner.from_cfg(config)
    messages = []
    monkeypatch.setattr(
        'eomt_mm.engine.mask_annealing.print_log',
        lambda text, logger, level: messages.append((text, level)),
    )
    tester.test()
    assert len(messages) == warned
    if warned:
        text, level = messages[0]
        assert level == logging.WARNING
        assert 'iteration 5' in text
        assert 'iteration 10 of 12' in text


@pytest.mark.parametrize(
    ('epoch', 'iteration', 'warned'), [(1, 10, True), (6, 60, False)]
)
def test_a_checkpoint_of_a_training_by_epochs(epoch, iteration, warned, monkeypatch):
    """10 iterations an epoch, 6 epochs: the annealing ends at 50."""
    said = []
    monkeypatch.setattr(
        mask_annealing, 'print_log', lambda text, **_: said.append(text)
    )
    backbone = SimpleNamespace(mask_probs=[0.0] * 4)
    runner = SimpleNamespace(
        model=SimpleNamespace(backbone=backbone),
        cfg=dict(train_cfg=dict(max_epochs=6)),
    )
    hook = MaskAnnealingHook()
    hook.after_load_checkpoint(runner, dict(meta=dict(iter=iteration, epoch=epoch)))
    hook.before_test(runner)
    assert any('at iteration 50 of 60' in text for text in said) == warned
