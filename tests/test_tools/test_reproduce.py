"""tools/reproduce.py: the whole of it, small; its parts have tests of their own."""

import json
import subprocess
import sys

import pytest

from eomt_mm.errors import UserError

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


@pytest.fixture(scope='module')
def scenes(tmp_path_factory, run_tool):
    out = tmp_path_factory.mktemp('data') / 'scenes'
    options = ('--train', 8, '--val', 3, '--workers', 1)
    run_tool('dataset_converters/make_scenes', out, *options)
    return out


@pytest.mark.slow
def test_mask_annealing_from_nothing_to_the_table(root, tool, scenes, tmp_path, capsys):
    work_dir = tmp_path / 'work'
    command = [
        *('--table', 'annealing', '--seeds', '0', '--iterations', '4', '--jobs', '2'),
        *('--scenes', str(scenes), '--work-dir', str(work_dir)),
        *('--cfg-options', *TINY),
    ]
    # Nothing can be trained.
    broken = [*command, 'model.backbone.num_blocks=9']
    with pytest.raises(UserError, match='3 trainings failed.*num_blocks is 9'):
        tool('reproduce').main(broken)

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

    # Once more: nothing is left to do. One result is lost: its test alone is repeated.
    tool('reproduce').main(command)
    assert '3 trainings, 3 of them finished' in capsys.readouterr().out
    (folder,) = work_dir.glob('step5_scenes_panoptic-seed0-*/step5*.json')
    folder.unlink()
    tool('reproduce').main(command)
    assert '3 trainings, 2 of them finished' in capsys.readouterr().out
    log = (folder.parent / 'log.txt').read_text()
    assert log.count('$ python tools/train.py') == 1
    assert log.count('$ python tools/test.py') == 2


@pytest.mark.slow
def test_equal_seconds(tool, scenes, tmp_path):
    report = tool('reproduce').main(
        [
            *('--table', 'annealing', '--seeds', '0', '--seconds', '1', '--jobs', '2'),
            *('--scenes', str(scenes), '--work-dir', str(tmp_path)),
            *('--cfg-options', *TINY),
        ]
    )
    paces = {
        json.loads(path.read_text())['config']: json.loads(path.read_text())['seconds']
        for path in tmp_path.glob('pace/*/pace.json')
    }
    assert len(paces) == 3
    for run in report.runs:
        assert run.iterations == max(1, round(1 / paces[run.config]))


def test_two_calls_do_not_meet(root, tool, tmp_path):
    code = (
        'import sys, time\nfrom pathlib import Path\n'
        'from eomt_mm.cli.jobs import sole_user\n'
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
