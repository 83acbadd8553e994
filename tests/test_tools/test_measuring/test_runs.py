"""Runs: their names, what is left to do, what is kept."""

import json
from dataclasses import replace

import pytest

from eomt_mm.errors import UserError
from measuring.reproduction.runs import PACE_ITERATIONS, Pace, Recipe, Run

SCORES = {'coco_panoptic/PQ': 61.5, 'mIoU': 70.25, 'coco_panoptic/RQ': 66.0}


@pytest.fixture
def recipe(tmp_path):
    for name in ('train.py', 'test.py'):
        (tmp_path / name).write_text(f"kind = '{name}'\n")
    return Recipe(tmp_path, 'runs', 'data 1', ('data_root=d', 'batch=2'))


@pytest.fixture
def run(recipe):
    return Run(recipe, 'train.py', ('train.py', 'test.py'), seed=3, iterations=40)


def leave_checkpoint(run, iteration):
    """What a training leaves behind."""
    run.path.mkdir(parents=True, exist_ok=True)
    (run.path / f'iter_{iteration}.pth').touch()
    (run.path / 'last_checkpoint').write_text(f'/elsewhere/iter_{iteration}.pth')


def leave_scores(run, command, scores=SCORES):
    """What a test leaves behind."""
    folder = run.recipe.root / command[command.index('--work-dir') + 1]
    (folder / '20260101').mkdir(parents=True)
    (folder / '20260101/20260101.json').write_text(json.dumps(scores))


def test_everything_that_decides_a_result_is_in_the_name(run, recipe):
    others = [
        replace(run, seed=4),
        replace(run, iterations=41),
        replace(run, config='test.py'),
        replace(run, recipe=replace(recipe, data='data 2')),
        replace(run, recipe=replace(recipe, options=('data_root=d', 'batch=3'))),
    ]
    folders = {r.folder for r in [run, *others]}
    assert len(folders) == 6
    assert replace(run).folder == run.folder
    assert run.folder.startswith('runs/train-seed3-')


def test_a_changed_config_is_another_run(tmp_path, run):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub/train.py').write_text("kind = 'another'\n")
    moved = replace(run, recipe=replace(run.recipe, root=tmp_path / 'sub'))
    assert moved.folder != run.folder


def test_trains_tests_and_keeps_the_results(run):
    steps = run.steps()
    command = next(steps)
    assert command[:4] == ['tools/train.py', 'train.py', '--work-dir', run.folder]
    assert '--resume' not in command
    assert {'train_cfg.max_iters=40', 'randomness.seed=3', 'batch=2'} <= {*command}
    leave_checkpoint(run, 40)
    for test in ('train.py', 'test.py'):
        assert not run.is_finished
        command = next(steps)
        assert command[:3] == ['tools/test.py', test, f'{run.folder}/iter_40.pth']
        assert command[-3:] == ['--cfg-options', 'data_root=d', 'batch=2']
        assert run.result(test) is None
        leave_scores(run, command)
    assert next(steps, None) is None
    assert run.is_finished
    result = run.result('test.py')
    assert (result['PQ'], result['mIoU'], result['seed']) == (61.5, 70.25, 3)
    assert result['all_scores'] == SCORES
    assert run.outcome == 'PQ 61.5, mIoU 70.2; with test: PQ 61.5, mIoU 70.2'
    assert list(replace(run).steps()) == []


def test_a_killed_training_is_resumed(run):
    leave_checkpoint(run, 20)
    assert '--resume' in next(run.steps())


def test_a_killed_test_is_repeated_and_nothing_else(run):
    leave_checkpoint(run, 40)
    steps = run.steps()
    leave_scores(run, next(steps))
    assert next(steps)[1] == 'test.py'  # written, and killed here
    assert [command[1] for command in _first(replace(run).steps())] == ['test.py']


def _first(steps):
    return [next(steps)]


def test_a_training_without_a_checkpoint(run):
    steps = run.steps()
    next(steps)
    with pytest.raises(UserError, match='left no checkpoint'):
        next(steps)


def test_pace(recipe):
    pace = Pace(recipe, 'train.py')
    steps = pace.steps()
    command = next(steps)
    assert f'train_cfg.max_iters={PACE_ITERATIONS}' in command
    assert '/pace/' in command[3]
    log = pace.path / '20260101/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    records = [dict(loss=1.0, time=t, step=i) for i, t in enumerate((9.0, 0.25))]
    log.write_text('\n'.join(map(json.dumps, records)))
    assert not pace.is_finished
    assert next(steps, None) is None
    assert pace.is_finished and pace.seconds == 0.25
    assert pace.outcome == '250 ms an iteration'
    assert list(Pace(recipe, 'train.py').steps()) == []
