"""Several commands at a time, each with its own log."""

import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eomt_mm.errors import UserError

LOG = 'log.txt'
POLL = 0.2  # seconds


class Job(Protocol):
    """Commands that run one after the other."""

    name: str
    path: Path  # of its folder, where the log is written
    is_finished: bool
    outcome: str  # once it is finished, for messages

    def steps(self) -> Iterator[list[str]]:
        """Yield commands, each when its predecessor has succeeded."""


@dataclass(frozen=True)
class Launch:
    """Conditions of the commands.

    Attributes:
        root (Path): Their directory; this Python runs them.
        env (Mapping[str, str]): Their environment.
        keep_open (Sequence[int]): File descriptors that they inherit.
    """

    root: Path
    env: Mapping[str, str]
    keep_open: Sequence[int] = ()


@dataclass(frozen=True)
class Failure:
    """A job that failed, and the reason in a line."""

    job: Job
    reason: str


class _Running:
    """A job under way."""

    def __init__(self, job: Job, launch: Launch) -> None:
        self.job = job
        self.launch = launch
        self.started = time.monotonic()
        self.reason: str | None = None
        self._steps = job.steps()
        self._process: subprocess.Popen | None = None

    def is_over(self) -> bool:
        """Start the next command if it is time; set `reason` at a failure."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return False
            if status:
                self.reason = _last_word(self.job.path / LOG, status)
                return True
        try:
            command = next(self._steps, None)
        # A result that cannot be read is the failure of this job alone.
        except Exception as error:
            self.reason = f'{type(error).__name__}: {error}'
            return True
        if command is None:
            return True
        self._start(command)
        return False

    def _start(self, command: list[str]) -> None:
        self.job.path.mkdir(parents=True, exist_ok=True)
        with (self.job.path / LOG).open('a') as log:
            log.write(f'\n$ python {" ".join(command)}\n')
            log.flush()
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.launch.root,
                env=self.launch.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.launch.keep_open,
                # An interrupt from the keyboard is passed on to it, once.
                start_new_session=True,
            )

    def interrupt(self) -> None:
        """Ask the running command to end."""
        if self._process is not None:
            # Not SIGINT: what a shell started in the background, and all below it,
            # ignores that until the tool has set its own handlers.
            self._process.terminate()

    def wait(self) -> None:
        """Wait for the running command."""
        if self._process is not None:
            self._process.wait()


def run_jobs(
    jobs: Sequence[Job],
    at_once: int,
    launch: Launch,
    on_end: Callable[[Job, Failure | None, float], None],
) -> list[Failure]:
    """Run jobs to their end; the failure of one does not stop the others.

    Args:
        jobs (Sequence[Job]): Jobs in the order of their start.
        at_once (int): Number of jobs that run at a time.
        launch (Launch): Conditions of the commands.
        on_end (Callable): Called with a job that is over, its failure if it failed,
            and the seconds it took.

    Returns:
        list[Failure]: The failures.

    Raises:
        KeyboardInterrupt: When all running commands have ended in order.
    """
    waiting = deque(jobs)
    running: list[_Running] = []
    failures = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_Running(waiting.popleft(), launch))
            for state in [state for state in running if state.is_over()]:
                running.remove(state)
                failure = state.reason and Failure(state.job, state.reason)
                failures += [failure] if failure else []
                on_end(state.job, failure, time.monotonic() - state.started)
            time.sleep(POLL)
    except KeyboardInterrupt:
        for state in running:
            state.interrupt()
        for state in running:
            state.wait()
        raise
    return failures


def run_alone(command: list[str], launch: Launch) -> None:
    """Run one command, whose output appears at once.

    Raises:
        UserError: If it failed and has reported why.
        KeyboardInterrupt: When it has ended in order.
    """
    print(f'\n$ python {shlex.join(command)}', flush=True)
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=launch.root,
        env=launch.env,
        pass_fds=launch.keep_open,
        start_new_session=True,  # as above
    )
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if status:
        raise UserError(f'{command[0]} ended with status {status}')


def _last_word(log: Path, status: int) -> str:
    """Return the last line of a failed command."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines()]
    last = next((line for line in reversed(lines) if line), '')
    how = f'ended by signal {-status}' if status < 0 else f'status {status}'
    return f'{last.removeprefix("error: ")} ({how})'
