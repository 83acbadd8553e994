"""Alternating, timing, memory; the rows that come of it."""

import json
import sys
import time

import pytest
import torch

from eomt_mm.errors import UserError
from measuring.contest import Contest, Plan, hold, refuse_differing
from measuring.measure import Outcome, alternate, memory_of, peak_memory
from measuring.rows import Row, machine, markdown, write_rows

CPU = torch.device('cpu')
PLAN = Plan(CPU, rounds=3, warmup=1)


def test_contenders_take_turns_and_nobody_is_always_last():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in 'abc'}
    outcomes = alternate(contenders, rounds=2, warmup=1, device=CPU)
    assert ''.join(calls) == 'bcacababc'
    assert [len(outcome.seconds) for outcome in outcomes.values()] == [2, 2, 2]


def test_what_is_slower_measures_slower():
    work = {'slow': lambda: time.sleep(0.02), 'fast': lambda: time.sleep(0.001)}
    outcomes = alternate(work, rounds=3, warmup=0, device=CPU)
    assert outcomes['slow'].median > 0.02 > outcomes['fast'].median


def test_median_and_quartiles():
    outcome = Outcome(seconds=[5.0, 1.0, 2.0, 3.0, 4.0])
    assert outcome.median == 3
    assert outcome.quartiles == (2, 4)
    assert Outcome(seconds=[2.0]).quartiles == (2, 2)


def test_one_that_fails_is_out_and_the_others_go_on():
    def broken():
        raise RuntimeError('no such operator\nwith a second line')

    def unbuildable():
        raise UserError('this | is missing')

    contest = Contest(
        'a case',
        images=2,
        contenders={
            'first': lambda: lambda: torch.ones(2),
            'broken': lambda: broken,
            'unbuildable': unbuildable,
        },
    )
    (first, second, third), differing = hold(contest, PLAN)
    assert first.error is None and first.images_per_second > 0 and not differing
    assert second.error == 'no such operator' and second.milliseconds is None
    assert third.error == 'this / is missing'
    table = markdown([first, second, third])
    assert '| broken |' in table and 'no such operator |' in table


@pytest.mark.parametrize('exact', [set(), {'second'}])
def test_results_that_differ_are_refused_where_they_must_not(exact):
    contenders = {
        'first': lambda: lambda: torch.zeros(10, 10),
        'second': lambda: lambda: torch.ones(10, 10),
        'third': lambda: lambda: torch.zeros(10, 10),
    }
    rows, differing = hold(Contest('a case', 1, contenders, exact), PLAN)
    assert '100.000% of pixels differ' in rows[1].results
    assert 'equal' in rows[2].results
    assert differing == list(exact)
    if exact:
        with pytest.raises(UserError, match='second'):
            refuse_differing(differing)
    else:
        refuse_differing(differing)


def test_share_of_the_limit():
    contest = Contest(
        'a case',
        images=1,
        contenders={'first': lambda: lambda: time.sleep(0.1)},
        operations=100,
        rates={'first': 2000},  # 100 operations in 50 ms
    )
    (row,), _ = hold(contest, PLAN)
    assert 0.3 < row.share_of_limit <= 0.5


SCRIPT = """
import sys, torch
sys.path.append({folder!r})
from measuring.measure import bound_memory, peak_memory
bound_memory()
size = int(sys.argv[1])
print(peak_memory(lambda: torch.ones(size, dtype=torch.uint8), torch.device('cpu')))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_memory_is_that_of_the_call(root, tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(folder=str(root / 'tools/analysis_tools')))
    size, error = memory_of([str(script), str(2**26)])
    assert error is None and 0.95 * 2**26 < size < 1.2 * 2**26
    # More than the machine has: an error of this process, and of no other.
    size, error = memory_of([str(script), str(2**50)])
    assert size is None and 'memory' in error


def test_a_process_that_is_killed_says_so(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text('import os, signal; os.kill(os.getpid(), signal.SIGKILL)')
    assert memory_of([str(script)]) == (None, 'ended by signal 9')


def test_json_is_whole(tmp_path):
    rows = [Row('a case', 'first', milliseconds=1.5), Row('a case', 'b', error='why')]
    path = tmp_path / 'folder' / 'figures.json'
    write_rows(str(path), rows, ['python', 'tool.py', 'a b'], machine(CPU))
    content = json.loads(path.read_text())
    assert content['command'] == "python tool.py 'a b'"
    assert content['about']['torch'] == torch.__version__.split('+')[0]
    assert [Row(**row) for row in content['rows']] == rows
    assert [p.name for p in path.parent.iterdir()] == ['figures.json']


@pytest.mark.gpu
def test_memory_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip('needs a GPU')
    device = torch.device('cuda')
    size = peak_memory(
        lambda: torch.ones(2**26, dtype=torch.uint8, device=device), device
    )
    assert size == 2**26
