"""Several commands at a time."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from eomt_mm.cli import noted_interrupts
from eomt_mm.errors import UserError
from measuring.jobs import LOG, Launch, run_alone, run_jobs

CLOCK = 'import time; print(time.monotonic(), flush=True); time.sleep(0.6); '


@dataclass
class Job:
    """Runs pieces of Python."""

    name: str
    path: Path
    codes: tuple
    is_finished = False
    outcome = 'fine'

    def steps(self):
        for code in self.codes:
            yield ['-c', code]


@pytest.fixture
def launch(tmp_path):
    return Launch(tmp_path, {**os.environ, 'WORD': 'hello'})


def make(tmp_path, **codes):
    return [Job(name, tmp_path / name, words) for name, words in codes.items()]


def test_one_failure_does_not_stop_the_others(tmp_path, launch):
    jobs = make(
        tmp_path,
        bad=('print("one"); raise SystemExit("error: no luck")', 'print("never")'),
        killed=('import os; os.kill(os.getpid(), 9)',),
        good=('import os; print(os.environ["WORD"])', 'print("second")'),
    )
    ended = []
    failures = run_jobs(jobs, 2, launch, lambda *args: ended.append(args))
    assert {f.job.name: f.reason for f in failures} == {
        'bad': 'no luck (status 1)',
        'killed': f'{chr(36)} python -c {jobs[1].codes[0]} (ended by signal 9)',
    }
    log = (tmp_path / 'good' / LOG).read_text()
    assert 'hello\n' in log and 'second\n' in log
    assert 'never\n' not in (tmp_path / 'bad' / LOG).read_text()
    outcome = {job.name: failure for job, failure, _ in ended}
    assert outcome['good'] is None and outcome['bad'].reason == 'no luck (status 1)'


def test_an_unreadable_result_is_the_failure_of_its_job(tmp_path, launch):
    class Broken(Job):
        def steps(self):
            yield ['-c', 'pass']
            raise UserError('no scores')

    jobs = [Broken('broken', tmp_path / 'b', ()), *make(tmp_path, good=('pass',))]
    (failure,) = run_jobs(jobs, 1, launch, lambda *_: None)
    assert failure.reason == 'UserError: no scores'


@pytest.mark.parametrize('at_once', [1, 2])
def test_no_more_at_once_than_asked_for(tmp_path, launch, at_once):
    code = CLOCK + 'print(time.monotonic())'
    jobs = make(tmp_path, a=(code,), b=(code,), c=(code,))
    assert run_jobs(jobs, at_once, launch, lambda *_: None) == []
    spans = []
    for job in jobs:
        lines = (job.path / LOG).read_text().splitlines()[-2:]
        spans.append(tuple(map(float, lines)))
    for start, _ in spans:
        assert sum(s <= start < e for s, e in spans) <= at_once


PATIENT = """
import signal, time, sys
def end(*_):
    print('put away', flush=True)
    time.sleep(0.5)
    print('ended', flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as below a shell's background
signal.signal(signal.SIGTERM, end)
print('ready', flush=True)
time.sleep(60)
"""


@pytest.fixture
def heeds_interrupts():
    """Restore SIGINT as a tool does: background jobs of a shell ignore it."""
    with noted_interrupts():
        yield


@pytest.mark.usefixtures('heeds_interrupts')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_lets_commands_put_their_things_in_order(tmp_path, launch, number):
    (job,) = make(tmp_path, slow=(PATIENT,))

    def interrupt():
        while 'ready\n' not in (job.path / LOG).read_text():
            time.sleep(0.1)
        os.kill(os.getpid(), number)

    (job.path).mkdir()
    (job.path / LOG).touch()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job], 1, launch, lambda *_: None)
    log = (job.path / LOG).read_text()
    assert log.count('\nput away\n') == log.count('\nended\n') == 1


@pytest.mark.usefixtures('heeds_interrupts')
def test_an_interrupt_of_a_command_alone(tmp_path, launch, capfd):
    code = PATIENT.replace("print('ready', flush=True)", "open('ready', 'w').close()")

    def interrupt():
        while not (tmp_path / 'ready').is_file():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_alone(['-c', code], launch)
    assert '\nput away\nended\n' in capfd.readouterr().out


def test_a_command_alone(tmp_path, launch, capfd):
    run_alone(['-c', 'print("seen")'], launch)
    assert 'seen' in capfd.readouterr().out
    with pytest.raises(UserError, match='ended with status 3'):
        run_alone(['-c', 'raise SystemExit(3)'], launch)
