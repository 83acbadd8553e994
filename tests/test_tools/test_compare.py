"""tools/analysis_tools/compare.py on stock models: every row comes, or says why not."""

import json
import subprocess
import sys

import pytest
import torch

from eomt_mm import checkpoints, cli
from eomt_mm.errors import UserError
from measuring.comparison.model import Score

TOOL = 'analysis_tools/compare'
QUICK = ('--size', '32', '32', '--rounds', '2', '--warmup', '0', '--no-memory')


def test_rows_without_a_network_do_not_stop_the_others(tool, config, tmp_path, capsys):
    operator = tmp_path / 'operator.py'
    # As of a model whose compiled operators are missing.
    operator.write_text(
        "_base_ = 'tiny.py'\nmodel = dict(neck=dict(type='NoSuchOperator'))\n"
    )
    glip = 'mmdet::glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365.py'
    comparison = tool(TOOL).main(
        [
            *(str(operator), f'fine={config}', 'nowhere.py', glip, 'mmseg::no/such.py'),
            *(*QUICK, '--out', str(tmp_path / 'out')),
        ]
    )
    broken, fine, nowhere, download, unknown = comparison.models
    assert 'NoSuchOperator' in broken.remarks[0]
    assert nowhere.remarks == ['network: config not found: nowhere.py']
    assert 'huggingface.co' in download.remarks[0]
    assert str(download.quoted) == 'box AP 43.0'
    assert 'mmseg has no config' in unknown.remarks[0]
    assert fine.remarks == []
    assert fine.size == (32, 32)
    assert fine.images_per_second == pytest.approx(1000 / fine.milliseconds)
    for row in (broken, nowhere, download, unknown):
        assert row.parameters is None and row.milliseconds is None
        assert len(row.remarks) == 1
    assert '| fine | 32 x 32 |' in capsys.readouterr().out
    assert {p.name for p in (tmp_path / 'out').iterdir()} == {
        'compare.md',
        'compare.csv',
        'compare.json',
        'compare.html',
    }


def test_nothing_at_all(tool, tmp_path, capsys):
    with pytest.raises(UserError, match='nothing is known .* config not found'):
        tool(TOOL).main(['nowhere.py', *QUICK, '--out', str(tmp_path)])
    assert '| nowhere |' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--device', 'foo'], '--device foo does not work'),
        (['--device', 'meta'], 'measured are cpu and cuda'),
        (['--device', 'cuda:99'], '--device cuda:99 does not work'),
        (['--warmup', '-1'], 'too small; give 0 or more'),
        (['--rounds', '0'], 'too small; give 1 or more'),
        (['--size', '0', '64'], 'too small; give 1 or more'),
        (['--out', '/proc/nothing'], '/proc/nothing cannot be a folder for results'),
        (['--out', __file__], 'give another --out'),
        (['--cfg-options', 'foo'], 'takes KEY=VALUE words'),
    ],
)
def test_bad_commands_are_one_line(tool, config, tmp_path, capsys, options, words):
    command = [str(config), *QUICK, '--out', str(tmp_path / 'out'), *options]
    try:
        status = cli.run(tool(TOOL).main, command)
    except SystemExit as end:  # argparse
        status = end.code
    out, err = capsys.readouterr()
    assert status == 2
    assert 'error: ' in err.splitlines()[-1] and words in err.splitlines()[-1]
    assert not out  # nothing was counted before


def test_scores_are_written_as_they_come(tool, config, tmp_path, monkeypatch, capsys):
    """A kill in the second test leaves the score of the first, and no empty folder."""
    module, out = tool(TOOL), tmp_path / 'out'

    def run_jobs(tests, at_once, launch, on_end):
        tests[0].model.measured = Score('mIoU', 43.25, 'tiny')
        on_end(tests[0], None, 1.0)
        assert '43.2' in (out / 'compare.csv').read_text()
        raise KeyboardInterrupt

    monkeypatch.setattr(module, 'run_jobs', run_jobs)
    monkeypatch.setattr(module, 'refuse_untestable', lambda *_: None)
    weights = str(tmp_path / 'a.pth')
    torch.save({'a': torch.ones(1)}, weights)
    command = [f'a={config}', weights, f'b={config}', weights, *QUICK]
    assert cli.run(module.main, [*command, '--out', str(out)]) == 130
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == f'interrupted; what is known until then is in {out / "compare.md"}'
    text = (out / 'compare.md').read_text()
    assert 'mIoU 43.2' in text and 'batch 1; interrupted before the end.' in text
    assert all(path.is_file() for path in out.iterdir())


def test_what_cannot_be_tested_is_told_whole_and_before_the_timing(
    tool, config, tmp_path, capsys
):
    root = tmp_path / ('nowhere' * 30)  # longer than a short line
    torch.save({'a': torch.ones(1)}, tmp_path / 'a.pth')
    comparison = tool(TOOL).main(
        [
            *(str(config), str(tmp_path / 'a.pth'), *QUICK),
            *('--out', str(tmp_path / 'out')),
            *('--cfg-options', f'data_root={root}'),
        ]
    )
    (model,) = comparison.models
    assert model.measured is None and model.milliseconds > 0
    (remark,) = model.remarks
    assert remark.startswith('score: ') and str(root) in remark
    assert remark.endswith('with --cfg-options data_root=DIR')
    assert remark in (tmp_path / 'out/compare.csv').read_text()
    out = capsys.readouterr().out
    assert out.index(remark) < out.index('timing 1 models')


def test_an_unreadable_checkpoint_ends_it_before_any_work(
    tool, config, tmp_path, capsys
):
    (tmp_path / 'a.pth').write_bytes(b'no checkpoint')
    out = tmp_path / 'out'
    words = [str(config), str(tmp_path / 'a.pth'), *QUICK, '--out', str(out)]
    assert cli.run(tool(TOOL).main, words) == 2
    captured = capsys.readouterr()
    assert 'a.pth' in captured.err and 'parameters' not in captured.out
    assert not list(out.iterdir())


@pytest.mark.slow
def test_scores_of_the_evaluators(tool, config, trained, tmp_path):
    state = checkpoints.read(trained)['state_dict']
    key = 'decode_head.conv_seg.weight'
    torch.save({**state, key: state[key][:2]}, tmp_path / 'other.pth')
    # Semantic, with the annotations of another task.
    (tmp_path / 'task.py').write_text(
        "_base_ = 'tiny.py'\n"
        "test_evaluator = dict(type='mmdet.CocoPanopticMetric', ann_file='p.json')\n"
    )
    comparison = tool(TOOL).main(
        [
            *(str(config), str(trained)),
            *(f'misfit={config}', str(tmp_path / 'other.pth')),
            *(str(tmp_path / 'task.py'), str(trained)),
            *(f'untrained={config}', *QUICK, '--out', str(tmp_path / 'out')),
        ]
    )
    scored, misfit, task, untrained = comparison.models
    assert all(model.milliseconds > 0 for model in comparison.models)
    assert misfit.measured is task.measured is untrained.measured is None
    assert 'conv_seg.weight is (2, 8, 1, 1)' in misfit.remarks[0]
    assert 'ann_file not found' in task.remarks[0]
    assert untrained.remarks == scored.remarks == []
    # What tools/test.py says itself.
    tool('test').main([str(config), str(trained), '--work-dir', str(tmp_path / 'test')])
    (result,) = (tmp_path / 'test').glob('*/*.json')
    assert scored.measured.value == json.loads(result.read_text())['mIoU']
    assert scored.measured.dataset == 'BaseSeg'
    assert (tmp_path / 'out/compare.png').is_file()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='memory is read from /proc')
def test_memory_is_measured_in_a_fresh_process(root, tool, config):
    command = [sys.executable, str(root / 'tools/analysis_tools/compare.py')]
    words = [f'x={config}', '--size', '256', '256', '--memory-of', 'x']
    run = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
    # At the least the first map of the network, in single precision.
    assert int(run.stdout.split()[-1]) > 4 * 128 * 128 * 4
