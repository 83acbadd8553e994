"""tools/reproduce.py: the whole of it, small; its parts have tests of their own."""

import json
import subprocess
import sys

import pytest

from eomt_mm.errors import UserError
from measuring.jobs import Failure
from measuring.reproduction.cost import Costs
from measuring.reproduction.runs import Pace, Run

TINY = (
    'model.backbone.timm_args.embed_dim=32',
    'model.backbone.timm_args.num_heads=2',
    'model.panoptic_head.embed_dims=32',
    'train_dataloader.batch_size=2',
    'param_scheduler.warmup=(1,1)',
)


@pytest.mark.parametrize(
    'options',
    [
        ['--iterations', '0'],
        ['--seconds', '-1'],
        ['--jobs', '0'],
        ['--seeds', '1', '1'],
        ['--seeds', '-1'],
        ['--iterations', '10', '--seconds', '10'],
    ],
)
def test_options_without_meaning(tool, options):
    with pytest.raises(SystemExit):
        tool('reproduce').parse_args(options)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('train_cfg.max_iters=2', 'give --iterations or --seconds'),
        ('train_cfg.val_interval=1', 'leave it out'),
        ('randomness.seed=5', 'give --seeds'),
        ('randomness=5', 'sets randomness.seed of each'),
        ('default_hooks.checkpoint.interval=1', 'leave it out'),
        ('data_root=d', 'give --scenes'),
        ('foo', 'takes KEY=VALUE words'),
    ],
)
def test_options_that_would_make_the_tables_false(tool, tmp_path, option, message):
    """The refusal precedes all work."""
    options = ('--work-dir', str(tmp_path / 'work'), '--cfg-options', 'a.b=1', option)
    with pytest.raises(UserError, match=message):
        tool('reproduce').main(options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_mask_annealing_from_nothing_to_the_table(tool, scenes, tmp_path, capsys):
    work_dir = tmp_path / 'work'
    command = [
        *('--table', 'annealing', '--seeds', '0', '--iterations', '4', '--jobs', '2'),
        *('--scenes', str(scenes.parent), '--work-dir', str(work_dir)),
        *('--cfg-options', *TINY),
    ]
    report = tool('reproduce').main(command)
    (table,) = report.tables
    for row in table.rows:
        for name in ('PQ', 'mIoU'):
            assert 0 <= report.scores(row, name)[0] <= 100
        assert report.costs.speeds[row.test] > 0
        assert report.costs.counted[row.test]['parameters'] < 100_000
    rows = json.loads((work_dir / 'results.json').read_text())['tables'][0]['rows']
    assert [row['iterations'] for row in rows] == [4] * 4
    out = capsys.readouterr().out
    assert '| masked | unmasked |' in out and '3 trainings, 0 of them finished' in out

    # One result is lost: its test alone is repeated.
    (lost,) = work_dir.glob('step5_scenes_panoptic-seed0-*/step5*.json')
    lost.unlink()
    tool('reproduce').main(command)
    assert '3 trainings, 2 of them finished' in capsys.readouterr().out
    log = (lost.parent / 'log.txt').read_text()
    assert log.count('$ python tools/train.py') == 1
    assert log.count('$ python tools/test.py') == 2


def test_scenes_without_ood_are_not_enough(tool, scenes, tmp_path):
    options = ('--table', 'ood', '--scenes', str(scenes.parent))
    with pytest.raises(UserError, match='no scenes out of distribution.*--overwrite'):
        tool('reproduce').main([*options, '--work-dir', str(tmp_path / 'work')])


@pytest.mark.slow
def test_out_of_distribution_from_nothing_to_the_table(tool, tmp_path, run_tool):
    scenes = tmp_path / 'scenes'
    options = ('--train', 4, '--val', 2, '--ood')
    run_tool('dataset_converters/make_scenes', scenes, *options)
    report = tool('reproduce').main(
        [
            *('--table', 'ood', '--seeds', '0', '--iterations', '2'),
            *('--scenes', str(scenes), '--work-dir', str(tmp_path / 'work')),
            *('--cfg-options', 'train_dataloader.batch_size=2'),
            'param_scheduler.warmup=(1,1)',
        ]
    )
    (table,) = report.tables
    for row in table.rows:
        for name in table.scores:
            assert 0 <= report.scores(row, name)[0] <= 100
        assert report.costs.counted[row.test]['parameters'] > 0


@pytest.fixture
def imagined(tool, monkeypatch, scenes, tmp_path):
    """The tool with trainings that end at once, or fail, and a way to call it."""
    module = tool('reproduce')
    fails = []

    def run_jobs(jobs, at_once, launch, on_end):
        failures = []
        for job in jobs:
            failure = Failure(job, 'no luck') if fails else None
            if isinstance(job, Pace):
                job.path.mkdir(parents=True)
                slow = 'step0' in job.config
                content = dict(config=job.config, seconds=0.5 if slow else 0.1)
                (job.path / 'pace.json').write_text(json.dumps(content))
            elif not fails:
                monkeypatch.setattr(Run, 'is_finished', True)
                monkeypatch.setattr(Run, 'outcome', 'fine')
            failures += [failure] if failure else []
            on_end(job, failure, 1.0)
        return failures

    monkeypatch.setattr(module, 'run_jobs', run_jobs)
    monkeypatch.setattr(module, 'cost_of', lambda *_: Costs())

    def call(*options):
        where = ('--scenes', str(scenes.parent), '--work-dir', str(tmp_path / 'work'))
        return module.main([*options, *where])

    call.fails = fails
    return call


def test_a_slow_network_makes_fewer_iterations_in_equal_seconds(imagined):
    report = imagined('--seconds', '20', '--seeds', '3', '4')
    counts = {(run.config.split('/')[-1][:5], run.iterations) for run in report.runs}
    others = {(f'step{i}', 200) for i in range(1, 6)}
    assert counts == {('step0', 40)} | others
    assert len(report.runs) == 14 and {run.seed for run in report.runs} == {3, 4}
    assert 'about 20 s' in report.markdown() and 'step0_scenes_panoptic 40' in (
        report.markdown()
    )


def test_options_of_the_user_are_named(imagined):
    options = ('test_dataloader.dataset.indices=8', 'param_scheduler.warmup=(1,2)')
    text = imagined('--table', 'annealing', '--cfg-options', *options).markdown()
    said = "with the options test_dataloader.dataset.indices=8 'param_scheduler.warm"
    assert said in ' '.join(text.split())


@pytest.mark.parametrize(
    ('options', 'warns'),
    [
        (('--iterations', '90'), True),
        (('--iterations', '91'), False),
        (('--iterations', '4', '--cfg-options', 'param_scheduler.warmup=(1,1)'), False),
        # Of step 0, which is slow here.
        (('--seconds', '45', '--table', 'ladder'), True),
    ],
)
def test_trainings_within_the_warmup(imagined, capsys, options, warns):
    imagined('--table', 'annealing', *options)
    assert ('within the warm-up of 90' in capsys.readouterr().err) == warns


def test_failures_are_told_at_the_end(imagined, tmp_path, capsys):
    imagined.fails.append(True)
    with pytest.raises(UserError, match='3 trainings failed; step4.*seed 0: no luck'):
        imagined('--table', 'annealing', '--seeds', '0')
    assert 'FAILED: no luck' in capsys.readouterr().out
    assert (tmp_path / 'work/results.md').is_file()


def test_two_calls_do_not_meet(root, tool, tmp_path):
    code = (
        'import sys, time\nfrom pathlib import Path\n'
        'from eomt_mm.files import sole_user\n'
        'with sole_user(Path(sys.argv[1])):\n'
        '    print("held", flush=True)\n    time.sleep(60)\n'
    )
    other = subprocess.Popen(
        [sys.executable, '-c', code, str(tmp_path)], stdout=subprocess.PIPE, cwd=root
    )
    try:
        assert other.stdout.readline() == b'held\n'
        with pytest.raises(UserError, match='in use by another call'):
            tool('reproduce').main(['--work-dir', str(tmp_path)])
    finally:
        other.kill()
        other.wait()
