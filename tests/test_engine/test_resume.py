"""k iterations + resume + k iterations equal 2k iterations, bit for bit."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eomt_mm.engine import IterationSeedHook


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def loader(sampler, workers):
    return {
        'dataset': {'type': 'EngineToyData'},
        'batch_size': 2,
        'num_workers': workers,
        'persistent_workers': workers > 0,
        'sampler': {'type': sampler},
    }


@pytest.mark.parametrize('workers', [0, 4])
@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
@pytest.mark.parametrize('stop', [5, 10])
def test_resumed_run_is_the_uninterrupted_run(
    run_and_resume, assert_same_run, stop, sampler, workers
):
    runs = run_and_resume(f'iter_{stop}', train_dataloader=loader(sampler, workers))
    assert_same_run(*runs, ('loss', 'lr', 'base_lr', 'mask_prob_0', 'mask_prob_2'))


@pytest.mark.parametrize('workers', [0, 4])
@pytest.mark.parametrize('stop', ['epoch_1', 'iter_6'])  # 6 is amid the second epoch
def test_resumed_epochs_are_the_uninterrupted_ones(
    run_and_resume, assert_same_run, stop, workers
):
    checkpoint = {
        'type': 'CheckpointHook',
        'interval': 1 if stop == 'epoch_1' else 6,
        'by_epoch': stop == 'epoch_1',
    }
    runs = run_and_resume(
        stop,
        train_dataloader=loader('DefaultSampler', workers),
        train_cfg={'by_epoch': True, 'max_epochs': 3},
        default_hooks={'checkpoint': checkpoint},
    )
    assert_same_run(*runs)


def test_without_the_hook_it_is_not(run_and_resume):
    # The toy model must be able to tell: otherwise the test above proves nothing.
    hooks = [{'type': 'eomt_mm.MaskAnnealingHook'}]
    whole, resumed = run_and_resume('iter_5', custom_hooks=hooks)
    weights = whole.model.state_dict()
    assert any(
        not torch.equal(value, weights[name])
        for name, value in resumed.model.state_dict().items()
    )


def test_first_seed_survives_a_resume_without_one(run_and_resume, assert_same_run):
    whole, resumed = run_and_resume('iter_5', randomness={'seed': None})
    assert resumed.seed == whole.seed
    assert_same_run(whole, resumed)


def test_step_depends_on_seed_rank_and_iteration():
    hook = IterationSeedHook()
    drawn = {}
    for seed in (0, 1):
        for rank in (0, 1):
            for iteration in (0, 1, 2):
                runner = SimpleNamespace(seed=seed, rank=rank, iter=iteration)
                hook.before_train_iter(runner, 0)
                drawn[seed, rank, iteration] = draw()
                hook.after_train_iter(runner, 0)
                hook.before_train_iter(runner, 0)
                assert draw() == drawn[seed, rank, iteration]
    for stream in zip(*drawn.values(), strict=True):
        assert len(set(stream)) == len(drawn)


def test_data_stream_is_untouched():
    hook = IterationSeedHook(seed=7)
    unnumbered = SimpleNamespace(dataloader=None)
    runner = SimpleNamespace(seed=0, rank=0, iter=0, train_loop=unnumbered)
    hook.before_train(runner)
    undisturbed = [draw() for _ in range(3)]
    hook.before_train(runner)
    stream = []
    for iteration in range(3):
        runner.iter = iteration
        stream.append(draw())
        hook.before_train_iter(runner, iteration)
        draw()
        hook.after_train_iter(runner, iteration)
        hook.before_val(runner)
        draw()
        hook.after_val(runner)
    assert stream == undisturbed
