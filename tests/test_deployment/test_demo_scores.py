"""The demo's trained models over their validation scenes, exported and not.

`make demo TASK=...` trains them; a task without its model is skipped.
"""

import pytest
from demo import TASKS

from eomt_mm import cli

# In percent: what rounding may do to a score, and fp16.
LIMITS = {'fp32': 0.05, 'fp16': 0.1}
OPTIONS = {
    'fp32': (),
    'fp16': ('--dtype', 'fp16'),
    'int8': ('--quantize', 'int8'),
}


@pytest.mark.campaign
@pytest.mark.parametrize('task', TASKS)
def test_scores(root, run_tool, tmp_path, capsys, monkeypatch, task):
    monkeypatch.chdir(root)
    demo = TASKS[task]
    checkpoint = cli.last_checkpoint(root / demo.work_dir)
    if checkpoint is None:
        pytest.skip(f'needs the model of make demo TASK={task}')
    # A shorter training is a finished one, too.
    trained = str(next((root / demo.work_dir).glob('*.py')))
    words = [trained, checkpoint, '--work-dir', tmp_path / 'test']
    cells = [demo.factor * run_tool('test', *words)[demo.key]]
    for name, options in OPTIONS.items():
        path = tmp_path / f'{name}.onnx'
        words = [trained, checkpoint, '--out', path, *options]
        run_tool('deployment/export', *words)
        scores = run_tool('deployment/score', trained, path, '--threads', 1)
        cells.append(demo.factor * scores[demo.key])
        if name in LIMITS:
            assert abs(cells[-1] - cells[0]) <= LIMITS[name]
    with capsys.disabled():
        print(f'\n| {task}, {demo.score} | {" | ".join(f"{c:.2f}" for c in cells)} |')
