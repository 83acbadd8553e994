"""Cost of the networks in miniature: asked of compare.py, once."""

import json

import pytest

from measuring.jobs import Launch
from measuring.reproduction import cost
from measuring.reproduction.runs import Recipe


@pytest.fixture
def recipe(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / f'{name}.py').write_text('model = dict(depth=3)\nbatch = 16\n')
    return Recipe(tmp_path, 'runs', 'data', ('batch=2', 'model.depth=5'))


def row(label, speed, remarks=()):
    return dict(
        label=label,
        parameters=1000,
        operations=2_500_000,
        images_per_second=speed,
        remarks=list(remarks),
    )


def test_asks_once_for_the_networks_with_their_options(recipe, monkeypatch):
    commands = []
    speeds = iter([None, 50.0])  # the first time it is killed before the timing

    def run_alone(command, launch):
        commands.append(command)
        folder = recipe.root / command[command.index('--out') + 1]
        rows = [row('a.py', next(speeds)), row('b.py', None, ['speed: no operator'])]
        content = dict(models=rows, setting='two cores')
        (folder / 'compare.json').write_text(json.dumps(content))

    monkeypatch.setattr(cost, 'run_alone', run_alone)
    launch = Launch(recipe.root, {})
    for _ in range(3):
        found = cost.cost_of(recipe, ['a.py', 'b.py'], launch)
    assert len(commands) == 2
    assert found.speeds == {'a.py': 50.0}
    assert found.counted['b.py'] == dict(parameters=1000, gflops=0.0025)
    assert found.machine == 'two cores'

    tool, first, second, *_ = commands[0]
    assert tool == 'tools/analysis_tools/compare.py'
    label, path = first.split('=')
    assert label == 'a.py' and second.startswith('b.py=')
    text = (recipe.root / path).read_text()
    assert 'batch = 2' in text and 'depth=5' in text
