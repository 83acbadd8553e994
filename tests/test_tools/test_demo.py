"""tools/demo.py: which commands it runs; the commands have tests of their own."""

import json
import sys
from pathlib import Path

import pytest

CONFIG = 'configs/demo/eomt_scenes_semantic.py'
SCORES = ('mIoU', 'coco_panoptic/PQ', 'coco/segm_mAP')


@pytest.fixture
def demo(tool, monkeypatch, tmp_path):
    """The demo with commands that are only noted, and do what they leave behind."""
    module = tool('demo')
    commands = []

    def step(name, about, command):
        commands.append(command)
        work_dir = tmp_path / 'run'
        if 'tools/train.py' in command:
            note(work_dir, 10)
        if 'tools/test.py' in command:
            for time, score in (('20260101_1', 50.0), ('20260102_1', 83.25)):
                (work_dir / 'test' / time).mkdir(parents=True)
                path = work_dir / 'test' / time / f'{time}.json'
                path.write_text(json.dumps(dict.fromkeys(SCORES, score)))

    monkeypatch.setattr(module, 'step', step)
    module.commands = commands
    return module


def note(work_dir, iteration):
    work_dir.mkdir(exist_ok=True)
    (work_dir / f'iter_{iteration}.pth').touch()
    # an absolute path of another place: the folder may have been moved
    (work_dir / 'last_checkpoint').write_text(f'/elsewhere/iter_{iteration}.pth')


def test_runs_all_steps_and_reports(demo, tmp_path, capsys):
    run = str(tmp_path / 'run')
    assert demo.main(['--work-dir', run]) == 0
    scenes, train, test, show, plot = demo.commands
    assert scenes[-1] == 'data/scenes'
    assert train == ['tools/train.py', CONFIG, '--work-dir', run]
    assert test[1:3] == [CONFIG, f'{run}/iter_10.pth']
    assert show[1:3] == test[1:3]
    assert plot[1] == run
    out = capsys.readouterr().out
    assert 'mIoU: 83.25' in out  # of the latest test
    assert f'tools/train.py {CONFIG} --work-dir {run}' in out


@pytest.mark.parametrize(
    'task, score', [('panoptic', 'PQ: 83.25'), ('instance', 'segm AP: 8325.00')]
)
def test_other_tasks(demo, tmp_path, capsys, task, score):
    """COCO's average precision is a fraction."""
    demo.main(['--task', task, '--work-dir', str(tmp_path / 'run')])
    config = CONFIG.replace('semantic', task)
    assert all(command[1] == config for command in demo.commands[1:4])
    assert score in capsys.readouterr().out


def test_tasks_do_not_share_a_directory(demo):
    places = {task.work_dir for task in demo.TASKS.values()}
    assert len(places) == len(demo.TASKS) == 3
    for task in demo.TASKS.values():
        assert (Path(demo.ROOT) / task.config).is_file()


@pytest.mark.parametrize('done, resumes', [(20, True), (100, False)])
def test_resumes_only_what_was_interrupted(demo, tmp_path, done, resumes):
    config = tmp_path / 'c.py'
    config.write_text('train_cfg = dict(max_iters=100)')
    note(tmp_path / 'run', done)
    demo.main(['--work-dir', str(tmp_path / 'run'), '--config', str(config)])
    assert ('--resume' in demo.commands[1]) is resumes


def test_a_failing_step_names_itself(tool, monkeypatch, capfd, tmp_path):
    def fail(code):
        return lambda *_: real('training', 'x', ['-c', code])

    module = tool('demo')
    real = module.step
    monkeypatch.setattr(module, 'step', fail('import sys; sys.exit("error: no")'))
    assert module.main(['--work-dir', str(tmp_path)]) == 1
    assert capfd.readouterr().err.splitlines() == [
        'error: no',
        'the demo stopped in its step "training" (status 1)',
    ]
    monkeypatch.setattr(module, 'step', fail('import os; os.kill(os.getpid(), 15)'))
    assert module.main(['--work-dir', str(tmp_path)]) == 128 + 15


def test_commands_are_shown_as_one_types_them(tool, monkeypatch):
    root = Path(__file__).parents[2]
    monkeypatch.setattr(sys, 'executable', str(root / '.venv/bin/python'))
    assert tool('demo').interpreter() == '.venv/bin/python'
    monkeypatch.setattr(sys, 'executable', '/usr/bin/python3')
    assert tool('demo').interpreter() == '/usr/bin/python3'
