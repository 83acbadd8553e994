"""tools/train.py on a stock tiny model: runs, resumes, one line per mistake."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

from eomt_mm import checkpoints, cli
from eomt_mm.files import sole_user

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fails(tool, capsys):
    """Runs train.py, expects status 2 and one line on stderr; returns that line."""

    def run(*argv, status=2):
        capsys.readouterr()
        assert cli.run(tool('train').main, [str(a) for a in argv]) == status
        lines = [x for x in capsys.readouterr().err.splitlines() if x.strip()]
        lines = [x for x in lines if 'Warning' not in x and 'warn' not in x]
        assert len(lines) == 1, lines
        return lines[0]

    return run


def iterations(path):
    return checkpoints.read(path)['meta']['iter']


def test_trains_and_writes_checkpoints(trained):
    assert iterations(trained) == 2
    assert (trained.parent / 'iter_1.pth').exists()
    assert (trained.parent / 'last_checkpoint').read_text().endswith('iter_2.pth')


def test_resume_goes_on(tool, config, trained, tmp_path):
    def train(*argv):
        tool('train').main([str(config), '--work-dir', str(tmp_path), *argv])

    four = ['--cfg-options', 'train_cfg.max_iters=4']
    train('--resume', str(trained), '--cfg-options', 'train_cfg.max_iters=3')
    assert iterations(tmp_path / 'iter_3.pth') == 3
    assert not (tmp_path / 'iter_2.pth').exists()  # went on, did not start afresh
    train(*four, '--resume')  # from the latest
    assert iterations(tmp_path / 'iter_4.pth') == 4
    assert not (tmp_path / 'iter_1.pth').exists()


def test_resume_of_nothing_starts_from_load_from(
    tool, config, trained, tmp_path, capsys
):
    """The same command starts a fine-tuning and goes on with it."""
    argv = [str(config), '--work-dir', str(tmp_path / 'run'), '--resume']
    options = [f'load_from={trained}', 'optim_wrapper.optimizer.lr=0.0']
    tool('train').main([*argv, '--cfg-options', *options])
    said = f'nothing to resume in {tmp_path / "run"}: training starts from load_from='
    assert f'{said}{trained}' in capsys.readouterr().out
    first = checkpoints.read(tmp_path / 'run/iter_2.pth')
    assert first['meta']['iter'] == 2  # from the weights, not from the iteration
    start = checkpoints.read(trained)['state_dict']
    learnt = [key for key in start if key.endswith(('weight', 'bias'))]
    assert all(torch.equal(first['state_dict'][k], start[k]) for k in learnt)

    (tmp_path / 'run/iter_1.pth').unlink()
    tool('train').main([*argv, '--cfg-options', *options, 'train_cfg.max_iters=3'])
    assert iterations(tmp_path / 'run/iter_3.pth') == 3
    assert not (tmp_path / 'run/iter_1.pth').exists()  # went on
    assert 'nothing to resume' not in capsys.readouterr().out


def test_resume_of_nothing_starts_anew(tool, config, tmp_path, capsys):
    tool('train').main([str(config), '--work-dir', str(tmp_path / 'run'), '--resume'])
    assert iterations(tmp_path / 'run/iter_2.pth') == 2
    assert 'training starts anew' in capsys.readouterr().out


def test_resume_needs_no_note(tool, config, trained, tmp_path, capsys):
    """A kill -9 leaves an empty record and a truncated newest file."""
    for name in ('iter_1.pth', 'iter_2.pth'):
        shutil.copy(trained.with_name(name), tmp_path)
    (tmp_path / 'last_checkpoint').touch()
    (tmp_path / 'iter_3.pth').write_bytes(trained.read_bytes()[:5000])
    argv = [str(config), '--work-dir', str(tmp_path), '--resume']
    tool('train').main([*argv, '--cfg-options', 'train_cfg.max_iters=4'])
    assert iterations(tmp_path / 'iter_4.pth') == 4
    out = capsys.readouterr().out
    assert f'passed over in {tmp_path}: iter_3.pth (cut short)' in out
    assert f'going on from {tmp_path}/iter_2.pth, the newest whole checkpoint' in out
    assert iterations(tmp_path / 'iter_3.pth') == 3  # written anew


def test_config_that_resumes(tool, config, trained, tmp_path):
    shutil.copy(trained, tmp_path)
    options = ['--cfg-options', 'resume=True', 'train_cfg.max_iters=3']
    tool('train').main([str(config), '--work-dir', str(tmp_path), *options])
    assert iterations(tmp_path / 'iter_3.pth') == 3


def test_one_training_a_work_dir(fails, config, tmp_path):
    with sole_user(tmp_path):
        line = fails(config, '--work-dir', tmp_path)
    assert line.startswith(f'error: {tmp_path} is in use by ')
    assert line.endswith('give another --work-dir')
    assert not list(tmp_path.glob('**/*.log'))  # nothing was begun


def test_divergence_is_one_line(fails, config, tmp_path):
    options = [
        'train_cfg.max_iters=50',
        'optim_wrapper.optimizer.lr=1e30',
        'default_hooks.divergence.type=eomt_mm.DivergenceHook',
        'default_hooks.divergence.patience=3',
        'default_hooks.checkpoint.type=eomt_mm.CheckpointHook',
    ]
    line = fails(config, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert 'training has diverged: for 3 iterations in a row, up to iteration' in line
    assert 'decode.loss_ce=nan' in line and 'the last good checkpoint is' in line


def test_work_dir_defaults_to_the_name_of_the_config(
    tool, config, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = ['train_cfg.max_iters=1', 'runner_type=Runner']
    tool('train').main([str(config), '--cfg-options', *options])
    assert (tmp_path / 'work_dirs' / 'tiny' / 'iter_1.pth').exists()


def test_local_rank_has_two_spellings(tool, config, monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    for flag in ('--local_rank=3', '--local-rank=3'):
        os.environ.pop('LOCAL_RANK', None)
        assert tool('train').parse_args([str(config), flag]).local_rank == 3
        assert os.environ['LOCAL_RANK'] == '3'


class TestBadInput:
    def test_config_not_found(self, fails, config):
        line = fails(config.with_name('tinny.py'))
        assert line.startswith('error: config not found')
        assert 'did you mean' in line and 'tiny.py' in line

    def test_syntax_error(self, fails, tmp_path):
        path = tmp_path / 'broken.py'
        path.write_text('a = 1\nb = (2\n')
        line = fails(path)
        assert str(path) in line and 'SyntaxError' in line and 'line 2' in line

    def test_name_error_tells_the_line(self, fails, tmp_path):
        path = tmp_path / 'broken.py'
        path.write_text('a = 1\nb = a + c\n')
        line = fails(path)
        assert 'line 2' in line and "'c'" in line

    def test_missing_base(self, fails, tmp_path):
        path = tmp_path / 'child.py'
        path.write_text("_base_ = ['./nowhere.py']\n")
        assert 'nowhere.py' in fails(path)

    def test_option_without_equals(self, tool, config, capsys):
        with pytest.raises(SystemExit) as stop:
            tool('train').main([str(config), '--cfg-options', 'max_iters'])
        assert stop.value.code == 2
        assert 'KEY=VALUE' in capsys.readouterr().err

    def test_option_that_does_not_fit(self, fails, config):
        line = fails(config, '--cfg-options', 'train_pipeline.9.type=A')
        assert '--cfg-options does not fit' in line

    def test_amp_without_accelerator(self, fails, config, monkeypatch, tool):
        monkeypatch.setattr(tool('train'), 'get_device', lambda: 'cpu')
        assert '--amp needs an accelerator' in fails(config, '--amp')
        option = 'optim_wrapper.type=AmpOptimWrapper'
        assert 'AmpOptimWrapper needs' in fails(config, '--cfg-options', option)

    def test_no_length(self, fails, config):
        config.write_text(config.read_text().replace('max_iters=2, ', ''))
        assert 'max_iters' in fails(config)

    def test_auto_scale_without_batch_size(self, fails, config):
        assert 'base_batch_size' in fails(config, '--auto-scale-lr')

    def test_data_root_missing(self, fails, config, tmp_path):
        root = tmp_path / 'nothing'
        line = fails(config, '--cfg-options', f'data_root={root}')
        assert str(root) in line and '--cfg-options data_root=DIR' in line

    def test_annotation_directory_missing(self, fails, config, tmp_path):
        (tmp_path / 'images' / 'training').mkdir(parents=True)
        line = fails(config, '--cfg-options', f'data_root={tmp_path}')
        assert f'{tmp_path}/annotations/training' in line and 'seg_map_path' in line

    def test_no_images(self, fails, config, tmp_path):
        for kind in ('images', 'annotations'):
            (tmp_path / kind / 'training').mkdir(parents=True)
        line = fails(config, '--cfg-options', f'data_root={tmp_path}')
        assert "'.jpg'" in line and f'{tmp_path}/images/training' in line

    @pytest.mark.parametrize('workers', [0, 1])
    def test_one_annotation_missing(self, fails, config, tmp_path, ade_root, workers):
        for kind in ('images', 'annotations'):
            os.makedirs(tmp_path / 'd' / kind)
            os.symlink(
                ade_root / kind / 'validation', tmp_path / 'd' / kind / 'validation'
            )
        os.symlink(ade_root / 'images/training', tmp_path / 'd/images/training')
        os.makedirs(tmp_path / 'd/annotations/training')
        line = fails(
            config,
            '--work-dir',
            tmp_path / 'run',
            '--cfg-options',
            f'data_root={tmp_path / "d"}',
            f'train_dataloader.num_workers={workers}',
        )
        assert 'annotations/training/' in line and '.png' in line

    def test_resume_from_nothing(self, fails, config, trained):
        line = fails(config, '--resume', trained.with_name('iter_7.pth'))
        assert 'checkpoint not found' in line and str(trained) in line

    def test_resume_from_truncated(self, fails, config, trained, tmp_path):
        path = tmp_path / 'cut.pth'
        path.write_bytes(trained.read_bytes()[:5000])
        assert 'cut short' in fails(config, '--resume', path)

    def test_resume_from_weights_only(self, fails, config, trained, tmp_path):
        path = tmp_path / 'weights.pth'
        torch.save(dict(state_dict=checkpoints.read(trained)['state_dict']), path)
        line = fails(config, '--resume', path)
        assert 'weights only' in line and 'load_from=' in line

    @pytest.mark.parametrize('kind', ['file', 'folder', 'sharded folder', 'index'])
    @pytest.mark.parametrize('by', ['load_from', 'resume'])
    def test_start_from_unconverted(self, fails, config, tmp_path, kind, by):
        path = folder = tmp_path / 'hub'
        folder.mkdir()
        if kind in ('file', 'folder'):
            save_file({'query.weight': torch.ones(2, 2)}, folder / 'model.safetensors')
        else:
            (folder / 'model.safetensors.index.json').write_text('{}')
        if kind == 'file':
            path = folder / 'model.safetensors'
        elif kind == 'index':
            path = folder / 'model.safetensors.index.json'
        words = ['--cfg-options', f'load_from={path}']
        line = fails(config, *(words if by == 'load_from' else ['--resume', path]))
        assert (
            f'convert it with python tools/model_converters/eomt2mm.py {path}' in line
        )
        assert 'model.backbone.pretrained' in line

    @pytest.mark.parametrize(
        ('option', 'found'),
        [
            ('x=dict(a=1)', '--cfg-options x=dict(a=1): a value is a number'),
            ('train_dataloader.dataset.pipeline.2.prob=5', 'step 2 of the pipeline'),
            ('train_dataloader.dataset.pipeline.2.probb=1', "no option 'probb'"),
            ('train_dataloader.dataset.pipeline.2.type=Flip', 'Flip is not in'),
        ],
    )
    def test_settings_that_mm_refuses(self, fails, config, option, found):
        assert found in fails(config, '--cfg-options', option)

    def test_disk_full(self, fails, config, tmp_path, monkeypatch):
        from mmengine.fileio.backends import LocalBackend

        put = LocalBackend.put

        def full(self, obj, path):
            if str(path).endswith('iter_2.pth'):
                Path(path).write_bytes(obj[: len(obj) // 2])
                raise OSError(errno.ENOSPC, 'No space left on device')
            put(self, obj, path)

        monkeypatch.setattr(LocalBackend, 'put', full)
        line = fails(config, '--work-dir', tmp_path / 'run')
        assert 'no space left' in line and line.endswith('--resume')
        assert not (tmp_path / 'run' / 'iter_2.pth').exists()
        assert (tmp_path / 'run' / 'iter_1.pth').exists()


@pytest.mark.parametrize('by_flag', [True, False])
def test_auto_scale_lr_reaches_every_rate(tool, config, tmp_path, by_flag):
    scaling = 'auto_scale_lr = dict(enable={}, base_batch_size=16)\n'
    config.write_text(config.read_text() + scaling.format(not by_flag))
    argv = [str(config), '--work-dir', str(tmp_path)]
    runner = tool('train').main([*argv, *['--auto-scale-lr'] * by_flag])
    assert runner.optim_wrapper.get_lr() == dict(lr=[0.01 * 2 / 16])
    assert runner.optim_wrapper.optimizer.defaults['lr'] == 0.01 * 2 / 16


def test_auto_scale_lr_reaches_base_lr(tool, tmp_path):
    """MMEngine logs it where a constructor makes groups of parameters."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.runner import Runner
    from torch import nn

    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=0.01),
        paramwise_cfg=dict(custom_keys={'0': dict(lr_mult=0.5)}),
    )
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=dict(batch_size=4),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=wrapper,
        auto_scale_lr=dict(base_batch_size=16),
        cfg=dict(train_dataloader=dict(batch_size=4)),
        experiment_name='scaled',
    )
    tool('train').scale_learning_rate(runner)
    rates = build_optim_wrapper(model, runner.optim_wrapper).get_lr()
    assert rates['base_lr'] == [0.0025]
    assert {*rates['lr']} == {0.00125, 0.0025}
    assert runner.auto_scale_lr is None  # or MMEngine would scale again


def test_half_written_checkpoints_are_removed_by_rank_0(tool, tmp_path, monkeypatch):
    half = tmp_path / 'iter_2.pth'
    half.write_bytes(b'PK')
    monkeypatch.setenv('RANK', '1')
    tool('train').remove_half_written(str(tmp_path))
    assert half.exists()
    monkeypatch.setenv('RANK', '0')
    tool('train').remove_half_written(str(tmp_path))
    assert not half.exists()


def test_defects_keep_their_traceback(tool, config, tmp_path):
    argv = [str(config), '--work-dir', str(tmp_path), '--cfg-options']
    with pytest.raises(KeyError, match='NoSuchBackbone'):
        cli.run(tool('train').main, [*argv, 'model.backbone.type=NoSuchBackbone'])


def test_resume_command(tool, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tools/train.py'])
    command = tool('train').resume_command
    go_on = 'python tools/train.py c.py --resume'
    assert command(['c.py'], None) == go_on
    assert command(['c.py', '--resume'], 'auto') == go_on
    assert command(['c.py', '--resume', 'a.pth'], 'a.pth') == go_on
    assert command(['c.py', '--resume=a.pth'], 'a.pth') == go_on
    assert command(['--resume', '--amp', 'c 1.py'], 'auto') == (
        "python tools/train.py --amp 'c 1.py' --resume"
    )


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupt_says_how_to_resume(config, tmp_path, number):
    work_dir = tmp_path / 'run'
    argv = [str(config), '--work-dir', str(work_dir)]
    options = ['--cfg-options', 'train_cfg.max_iters=100000']
    process = subprocess.Popen(
        [sys.executable, 'tools/train.py', *argv, *options],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (work_dir / 'last_checkpoint').exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert 'Traceback' not in err
    words = ' '.join([*argv, *options])
    assert err.splitlines()[-1] == (
        f'interrupted; resume with: python tools/train.py {words} --resume'
    )


def test_checkpoint_of_an_older_run_is_no_way_on(tool, tmp_path):
    note = tmp_path / 'last_checkpoint'
    note.write_text('iter_3000.pth')
    cfg = Config(dict(work_dir=str(tmp_path), launcher='none', resume=False))
    older, newer = note.stat().st_mtime + 1, note.stat().st_mtime - 1
    way_on = tool('train').way_on
    assert way_on(cfg, 'python x --resume', older).endswith('start it again')
    assert way_on(cfg, 'python x --resume', newer).endswith('python x --resume')
    cfg.resume = True
    assert way_on(cfg, 'python x --resume', older).endswith('python x --resume')


@pytest.mark.parametrize(
    ('device', 'given', 'fused'),
    [
        ('cuda', dict(type='AdamW'), True),
        ('cuda', dict(type='AdamW', fused=False), False),
        ('cuda', dict(type='AdamW', foreach=True), None),
        ('cuda', dict(type='LBFGS'), None),
        ('cpu', dict(type='AdamW'), None),
    ],
)
def test_the_optimizer_is_fused_on_cuda(tool, monkeypatch, device, given, fused):
    train = tool('train')
    monkeypatch.setattr(train, 'get_device', lambda: device)
    cfg = Config(dict(optim_wrapper=dict(optimizer=given)))
    train.fuse_optimizer(cfg)
    assert cfg.optim_wrapper.optimizer.get('fused') == fused
