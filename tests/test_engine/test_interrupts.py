"""Signals are held back until an iteration is complete."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from eomt_mm import checkpoints
from eomt_mm.cli import noted_interrupts
from eomt_mm.engine import DueValidationHook, InterruptHook, latest_checkpoint


class At(Hook):
    """Sends a signal in an iteration, so many times."""

    def __init__(self, stage, iteration, times=1):
        self.stage, self.iteration, self.times = stage, iteration, times

    def _send(self, stage, runner):
        if stage == self.stage and runner.iter == self.iteration:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGTERM)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self._send('train', runner)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self._send('val', runner)


def train(config, *hooks, delivered=()):
    runner = Runner.from_cfg(config)
    for hook in (*hooks, DueValidationHook(), InterruptHook(delivered)):
        runner.register_hook(hook)
    with noted_interrupts() as signals:
        try:
            runner.train()
        except KeyboardInterrupt:
            pass
    return runner, signals


def resumed(toy_config, work_dir, **changes):
    config = toy_config(work_dir=work_dir, resume=True, **changes)
    config.load_from = latest_checkpoint(config.work_dir)[0]
    return config


@pytest.mark.parametrize(
    'stage, iteration, saved', [('train', 2, 3), ('val', 4, 4), ('val', 12, 12)]
)
@pytest.mark.parametrize('ema', [False, True])
def test_resumes_bit_for_bit(toy_config, stage, iteration, saved, ema):
    hooks = [
        {'type': 'eomt_mm.MaskAnnealingHook'},
        {'type': 'eomt_mm.IterationSeedHook'},
        *([{'type': 'EMAHook', 'momentum': 0.3}] if ema else []),
    ]
    whole, _ = train(toy_config(work_dir='whole', custom_hooks=hooks))
    config = toy_config(work_dir='cut', custom_hooks=hooks)
    _, signals = train(config, At(stage, iteration))
    assert signals == [signal.SIGTERM]
    work_dir = Path(config.work_dir)
    assert (work_dir / 'last_checkpoint').read_text().endswith(f'iter_{saved}.pth')
    runner, signals = train(resumed(toy_config, 'cut', custom_hooks=hooks))
    assert not signals
    one, other = (
        checkpoints.read(Path(r.work_dir, 'iter_12.pth')) for r in (runner, whole)
    )
    for part in ('state_dict', *(['ema_state_dict'] if ema else [])):
        assert all(torch.equal(v, other[part][k]) for k, v in one[part].items())
    for key in ('train/loss', 'val/mIoU'):
        ours, theirs = (r.message_hub.get_scalar(key).data[0] for r in (runner, whole))
        assert np.array_equal(ours, theirs), key


def test_second_signal_ends_at_once(toy_config):
    config = toy_config()
    runner, signals = train(config, At('train', 2, times=2))
    assert signals == [signal.SIGTERM] and runner.iter == 2
    assert latest_checkpoint(config.work_dir)[0] is None


def test_a_lost_exception_ends_the_first_iteration(toy_config):
    runner, _ = train(toy_config(), delivered=[signal.SIGTERM])
    assert runner.iter == 0


def test_handlers_are_given_back(toy_config):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    train(toy_config(max_iters=2))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
