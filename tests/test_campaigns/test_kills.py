"""Trainings are killed in every phase; resumed, they equal the uninterrupted one."""

import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from eomt_mm import checkpoints
from eomt_mm.engine import latest_checkpoint

HERE = Path(__file__).parent
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PHASES = ('start', 'data', 'iteration', 'fork', 'validation', 'checkpoint', 'note')
MAX_ITERS = 30
# Scalars of the clock.
TIMES = re.compile(r'time|memory')
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['eomt_mm', 'killer'], allow_failed_imports=False)
custom_hooks = [
    dict(type='eomt_mm.MaskAnnealingHook'),
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='Killer'),
]
"""
OPTIONS = [
    'model.backbone.timm_args.embed_dim=32',
    'model.backbone.timm_args.depth=3',
    'model.backbone.timm_args.num_heads=4',
    'model.decode_head.embed_dims=32',
    'model.decode_head.criterion.num_points=64',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=1',
    'train_dataloader.persistent_workers=True',
    'val_dataloader.num_workers=1',
    'val_dataloader.persistent_workers=False',  # forks at each validation
    f'train_cfg.max_iters={MAX_ITERS}',
    'train_cfg.val_interval=3',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.checkpoint.max_keep_ckpts=2',
    'default_hooks.logger.interval=1',
    'param_scheduler.warmup=(2,4)',
]


@pytest.fixture(scope='module')
def start(tmp_path_factory, root, scenes):
    """Runs `tools/train.py` on the demo's model, shrunk, in a process of its own."""
    folder = tmp_path_factory.mktemp('kills')
    config = folder / 'killed.py'
    base = str(root / 'configs/demo/eomt_scenes_semantic.py')
    config.write_text(CONFIG.format(base=base))

    def run(work_dir, *argv, **env):
        paths = os.pathsep.join([str(root), str(HERE)])
        command = [sys.executable, 'tools/train.py', config, '--work-dir', work_dir]
        options = [f'data_root={scenes}', *OPTIONS]
        return subprocess.run(
            [*command, *argv, '--cfg-options', *options],
            cwd=root,
            env={**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1', **env},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope='module')
def uninterrupted(start, tmp_path_factory):
    """The final checkpoint of a training that nothing disturbs."""
    work_dir = tmp_path_factory.mktemp('whole')
    done = start(work_dir)
    assert done.returncode == 0, done.stderr
    return work_dir / f'iter_{MAX_ITERS}.pth'


def state(path):
    """What must be equal: weights, optimizer, schedules, scalars that are no times."""
    checkpoint = checkpoints.read(path)
    scalars = checkpoint['message_hub']['log_scalars']
    return {
        'iter': checkpoint['meta']['iter'],
        'weights': dict(checkpoint['state_dict']),
        'optimizer': checkpoint['optimizer'],
        'schedules': checkpoint['param_schedulers'],
        'scalars': {k: v.data for k, v in scalars.items() if not TIMES.search(k)},
        'best': checkpoint['message_hub']['runtime_info'].get('best_score'),
    }


def assert_equal(one, other, where=''):
    assert isinstance(one, type(other)), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f'{where}/{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f'{where}/{i}')
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other, equal_nan=True), where
    else:
        assert one == other, where


def survive(start, work_dir, kills, whole):
    """Kill one training again and again, let it end, and compare."""
    for number, phase, count in kills:
        done = start(
            work_dir,
            '--resume',
            KILL_AT=phase,
            KILL_COUNT=str(count),
            KILL_BY=str(int(number)),
        )
        hit = -number if number == signal.SIGKILL else 128 + number
        assert done.returncode == hit, (phase, number, done.stdout, done.stderr)
        if number != signal.SIGKILL:
            assert 'Traceback' not in done.stderr, (phase, number, done.stderr)
            assert done.stderr.splitlines()[-1].startswith('interrupted; ')
            if phase not in ('start', 'data'):
                assert latest_checkpoint(work_dir)[0], 'nothing saved'
    done = start(work_dir, '--resume')
    assert done.returncode == 0, done.stderr
    assert_equal(state(work_dir / f'iter_{MAX_ITERS}.pth'), state(whole))
    assert sorted(p.name for p in work_dir.glob('iter_*.pth')) == sorted(
        p.name for p in whole.parent.glob('iter_*.pth')
    )


@pytest.mark.slow
def test_a_sample_of_kills(start, uninterrupted, tmp_path):
    kills = [
        (signal.SIGKILL, 'note', 1),
        (signal.SIGTERM, 'fork', 1),
        (signal.SIGKILL, 'checkpoint', 2),
        (signal.SIGINT, 'iteration', 2),
        (signal.SIGTERM, 'validation', 2),
    ]
    survive(start, tmp_path, kills, uninterrupted)


@pytest.mark.campaign
def test_a_campaign_of_kills(start, uninterrupted, tmp_path, capsys):
    """21 kills a signal, in chains of one training each."""
    rng = random.Random(0)
    table = Counter()
    for number in SIGNALS:
        for chain in range(3):
            phases = rng.sample(PHASES, len(PHASES))
            # The start comes once, the others at least twice.
            kills = [
                (number, phase, 1 if phase == 'start' else rng.randint(1, 2))
                for phase in phases
            ]
            survive(start, tmp_path / f'{number.name}_{chain}', kills, uninterrupted)
            table.update((number.name, phase) for phase in phases)
    with capsys.disabled():
        print('\nkills survived, all resumed and equal bit for bit')
        print(f'{"":10}' + ''.join(f'{phase:>11}' for phase in (*PHASES, 'all')))
        for number in SIGNALS:
            row = [table[number.name, phase] for phase in PHASES]
            print(f'{number.name:10}' + ''.join(f'{n:>11}' for n in (*row, sum(row))))
    assert sum(table.values()) == len(SIGNALS) * 3 * len(PHASES)
