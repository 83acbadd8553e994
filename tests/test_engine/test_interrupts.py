"""Signals are held back until an iteration is complete."""

import os
import signal
import socket
import subprocess
import sys
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


RANK = """
import os, signal, time
from types import SimpleNamespace
import torch.distributed as dist
from eomt_mm.engine import InterruptHook

dist.init_process_group('gloo')
rank, hook = dist.get_rank(), InterruptHook()
signal.signal(signal.SIGTERM, signal.default_int_handler)
runner = SimpleNamespace(hooks=[], iter=0)
try:
    for runner.iter in range(100):
        hook.before_train_iter(runner, runner.iter)
        if rank == 1 and runner.iter == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01 * rank)
        hook.after_train_iter(runner, runner.iter)
except KeyboardInterrupt:
    print(runner.iter)
"""


def test_all_processes_stop_at_the_same_iteration(root):
    """One of two has the signal; the other would wait for its gradients for ever."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    env = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port, WORLD_SIZE='2')
    ranks = [
        subprocess.Popen(
            [sys.executable, '-c', RANK],
            cwd=root,
            env={**os.environ, **env, 'RANK': str(rank), 'PYTHONPATH': str(root)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        assert [rank.communicate(timeout=120)[0] for rank in ranks] == ['7\n', '7\n']
    finally:
        for rank in ranks:
            rank.kill()
