"""Two processes on a CPU, through the launcher script: the recipe, and how it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine import dist
from mmengine.config import Config

from eomt_mm import checkpoints
from eomt_mm.cli import processes
from eomt_mm.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/eomt_scenes_semantic.py'

# Losses of each process, threads at its end, and random numbers that are the same for
# every image. The config names this file in `custom_imports`.
INJECTED = """
import atexit, json, os
from pathlib import Path
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class LossNotes(Hook):
    def before_train(self, runner):
        self.file = open(f'{runner.work_dir}/losses_{runner.rank}.jsonl', 'a')
        atexit.register(note_threads, f'{runner.work_dir}/threads_{runner.rank}')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        losses = {name: value.item() for name, value in outputs.items()}
        note = dict(losses, iter=runner.iter + 1, pid=os.getpid())
        print(json.dumps(note), file=self.file, flush=True)

def note_threads(path):
    names = [(task / 'comm').read_text() for task in Path('/proc/self/task').glob('*')]
    Path(path).write_text(''.join(names))

def rand(images, *shape, device=None):
    drawn = torch.empty(1, *shape).uniform_(generator=torch.Generator().manual_seed(1))
    return drawn.expand(images, *shape)

torch.rand = rand
"""
OPTIONS = [
    'model.backbone.timm_args.embed_dim=32',
    'model.backbone.timm_args.depth=3',
    'model.decode_head.embed_dims=32',
    'model.decode_head.criterion.num_points=64',
    # PyTorch's weighted mean is one of the images of a process: equal weights make
    # it that of the batch.
    'model.decode_head.criterion.no_object_weight=1.0',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'train_cfg.max_iters=4',
    'train_cfg.val_interval=4',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
    'param_scheduler.warmup=(1,1)',
]


@pytest.fixture(scope='module')
def scenes(tmp_path_factory, run_tool):
    out = tmp_path_factory.mktemp('data') / 'scenes'
    options = ('--train', 16, '--val', 5, '--workers', 1)
    run_tool('dataset_converters/make_scenes', out, *options)
    return out / 'ADEChallengeData2016'


@pytest.fixture(scope='module')
def start(tmp_path_factory, scenes):
    """Starts a training of 8 images a batch in 1 or 2 processes."""
    folder = tmp_path_factory.mktemp('runs')
    (folder / 'injected.py').write_text(INJECTED)
    config = folder / 'tiny.py'
    config.write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        "custom_imports = dict(imports=['eomt_mm', 'injected'])\n"
        "custom_hooks = [dict(type='eomt_mm.MaskAnnealingHook'),\n"
        "    dict(type='eomt_mm.IterationSeedHook'), dict(type='LossNotes')]\n"
    )

    def run(processes, work_dir, *argv, options=()):
        command = [str(config), '--work-dir', str(folder / work_dir), *argv]
        command += ['--cfg-options', f'data_root={scenes}', *OPTIONS, *options]
        command += [f'train_dataloader.batch_size={8 // processes}']
        if processes == 1:
            command = [sys.executable, str(ROOT / 'tools/train.py'), *command]
        else:
            command.insert(1, str(processes))
            command = ['bash', str(ROOT / 'tools/dist_train.sh'), *command]
        env = {
            **os.environ,
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'PYTHONPATH': f'{ROOT}:{folder}',
            'OMP_NUM_THREADS': '1',
            'PORT': str(free_port()),
        }
        log = open(folder / f'{work_dir}.log', 'w')
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        process.log = Path(log.name)
        process.work_dir = folder / work_dir
        return process

    return run


def free_port():
    with socket.socket() as bound:
        bound.bind(('127.0.0.1', 0))
        return bound.getsockname()[1]


def notes(process, rank=0):
    path = process.work_dir / f'losses_{rank}.jsonl'
    return [json.loads(line) for line in path.read_text().splitlines()]


def finish(process, limit=150):
    try:
        status = process.wait(limit)
    finally:
        process.terminate()
    assert status == 0, process.log.read_text()[-3000:]
    return process


def mean_losses(process, ranks):
    parts = zip(*(notes(process, rank) for rank in range(ranks)), strict=True)
    return [
        {name: sum(part[name] for part in step) / ranks for name in step[0]}
        for step in parts
    ]


@pytest.fixture(scope='module')
def two(start):
    """A finished training in two processes."""
    return finish(start(2, 'two'))


@pytest.mark.slow
def test_shares_are_the_whole(start, two):
    """FSDP goes on with what DDP began, to the same losses, weights and scores."""
    folder = two.work_dir.with_name('shares')
    folder.mkdir()
    shutil.copy(two.work_dir / 'iter_2.pth', folder)
    strategy = ['runner_type=FlexibleRunner', 'strategy.type=eomt_mm.FSDPStrategy']
    shares = finish(start(2, 'shares', '--resume', options=strategy))
    for a, b in zip(mean_losses(two, 2)[2:], mean_losses(shares, 2), strict=True):
        del a['pid'], b['pid']
        assert a == pytest.approx(b, rel=1e-6)
    whole, found = (
        checkpoints.read(run.work_dir / 'iter_4.pth') for run in (two, shares)
    )
    for part in ('state_dict', 'optimizer'):
        torch.testing.assert_close(found[part], whole[part], rtol=1e-4, atol=1e-6)
    assert scores_of(shares) == pytest.approx(scores_of(two), abs=0.02)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='threads are in /proc')
def test_no_thread_is_left_to_abort(two):
    for rank in (0, 1):
        threads = (two.work_dir / f'threads_{rank}').read_text().split()
        assert threads and 'pt_gloo_runloop' not in threads


@pytest.mark.slow
def test_two_processes_are_one(start, two):
    one = finish(start(1, 'one'))
    alone, together = mean_losses(one, 1), mean_losses(two, 2)
    for step, (a, b) in enumerate(zip(alone, together, strict=True), 1):
        print(f'iteration {step}: 1 x 8 {a["loss"]:.7f}, 2 x 4 {b["loss"]:.7f}')
    for a, b in zip(alone, together, strict=True):
        del a['pid'], b['pid']
        assert a == pytest.approx(b, rel=1e-6)
    assert notes(two, 0)[0]['loss'] != notes(two, 1)[0]['loss']  # images of its own

    # One set of checkpoints and scores, of all five images.
    assert {p.name for p in two.work_dir.glob('*.pth')} >= {'iter_2.pth', 'iter_4.pth'}
    scores = [scores_of(process) for process in (one, two)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)

    # What two processes began, one goes on with.
    (two.work_dir / 'iter_4.pth').unlink()
    for path in two.work_dir.glob('best*'):
        path.unlink()
    (two.work_dir / 'last_checkpoint').write_text(str(two.work_dir / 'iter_2.pth'))
    (two.work_dir / 'losses_0.jsonl').unlink()
    resumed = finish(start(1, 'two', '--resume'))
    for a, b in zip(alone[2:], mean_losses(resumed, 1), strict=True):
        del b['pid']
        assert a == pytest.approx(b, rel=1e-6)


def scores_of(process):
    files = process.work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for path in files for line in path.open()]
    (scores,) = [line for line in lines if 'mIoU' in line]
    return {name: scores[name] for name in ('mIoU', 'aAcc')}


@pytest.mark.slow
def test_lost_process_ends_the_other(start):
    endless = ['train_cfg.max_iters=100000', 'train_cfg.val_interval=100000']
    process = start(2, 'lost', options=endless)
    files = [process.work_dir / f'losses_{rank}.jsonl' for rank in (0, 1)]
    try:
        while not all(file.exists() and '\n' in file.read_text() for file in files):
            assert process.poll() is None, process.log.read_text()[-3000:]
            time.sleep(0.2)
        pids = [notes(process, rank)[0]['pid'] for rank in (0, 1)]
        os.kill(pids[1], signal.SIGKILL)
        begun = time.monotonic()
        status = process.wait(60)
    finally:
        process.terminate()
    took = time.monotonic() - begun
    print(f'ended after {took:.1f} s')
    text = process.log.read_text()
    assert status == 128 + signal.SIGKILL
    assert took < 15
    assert not Path(f'/proc/{pids[0]}').exists()
    assert 'Traceback' not in text
    (line,) = [line for line in text.splitlines() if line.startswith('error:')]
    assert 'process 1 was ended by SIGKILL' in line and '--resume' in line


@pytest.mark.slow
def test_wrong_option_is_told_once(start):
    process = start(2, 'wrong', options=['model.decode_head.num_classes=x'])
    assert process.wait(150) == 2
    text = process.log.read_text()
    assert 'Traceback' not in text
    (line,) = [line for line in text.splitlines() if 'error:' in line]
    assert 'num_classes=x' in line


def test_launcher_without_gpu(monkeypatch):
    monkeypatch.setattr(processes, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(processes, 'set_multi_processing', lambda **kwargs: None)
    with pytest.raises(UserError, match='slurm needs GPUs.*dist_train.sh'):
        processes.join(Config(dict(launcher='slurm')))
    monkeypatch.setattr(torch.distributed, 'is_gloo_available', lambda: False)
    with pytest.raises(UserError, match='a GPU or gloo'):
        processes.join(Config(dict(launcher='pytorch')))


def test_different_configs(monkeypatch):
    other = Config(dict(launcher='pytorch', lr=2)).pretty_text
    monkeypatch.setattr(dist, 'all_gather_object', lambda text: [text, other])
    monkeypatch.setattr(processes, '_join_on_cpu', lambda cfg, timeout: None)
    monkeypatch.setattr(processes, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(processes, 'set_multi_processing', lambda **kwargs: None)
    with pytest.raises(UserError, match='0 and 1 .*- lr = 1; .* lr = 2'):
        processes.join(Config(dict(launcher='pytorch', lr=1)))
