"""tools/analysis_tools/compare.py on stock models: every row comes, or says why not."""

import json
import subprocess
import sys

import pytest
import torch

from eomt_mm.errors import UserError

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


def test_nothing_at_all(tool, tmp_path):
    with pytest.raises(UserError, match='nothing is known .* config not found'):
        tool(TOOL).main(['nowhere.py', *QUICK, '--out', str(tmp_path)])


@pytest.mark.slow
def test_scores_of_the_evaluators(tool, config, trained, tmp_path):
    state = torch.load(trained)['state_dict']
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
