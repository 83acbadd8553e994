"""Time and peak memory of contenders that do the same work.

Contenders are alternated in one run, so that a noisy machine favours none, and the
median counts. Memory is the peak that one call needs beyond its inputs: on a GPU by the
allocator's statistics, on a CPU by the resident set of a fresh process, as a shared one
would let a contender reuse memory that another has left.
"""

import ctypes
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

# Of the free memory, which a contender may take.
FREE_SHARE = 0.9
WIDTH = 160  # of a reason in a table

Work = Callable[[], object]
Clock = Callable[[], float]


@dataclass
class Outcome:
    """Result of one contender.

    Attributes:
        seconds (list[float]): Seconds of each round.
        result (object): Result of the last call.
        error (str, optional): Reason of a failure.
    """

    seconds: list[float] = field(default_factory=list)
    result: object = None
    error: str | None = None

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile in seconds: half of the rounds lie in between."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method='inclusive')
        return low, high


def alternate(
    contenders: Mapping[str, Work],
    rounds: int,
    warmup: int,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> dict[str, Outcome]:
    """Run all contenders in turn, and time each call.

    Args:
        contenders (Mapping[str, Callable]): The call of each.
        rounds (int): Measured calls of each.
        warmup (int): Calls of each before them.
        device (torch.device): Device of the work; a GPU is timed by its own events.
        clock (Callable): Seconds of a CPU. Defaults to `time.perf_counter`.

    Returns:
        dict[str, Outcome]: One for each. A contender that fails stops with a reason;
        the others continue.
    """
    outcomes = {who: Outcome() for who in contenders}
    running = list(contenders)
    for i in range(warmup + rounds):
        # The order rotates, so that no contender always follows the same one.
        running = running[1:] + running[:1]
        for who in list(running):
            outcome = outcomes[who]
            outcome.result = None  # frees the last one before the next is made
            try:
                seconds, outcome.result = timed(contenders[who], device, clock)
            # Whatever is wrong with one contender, it is not the others' fault.
            except Exception as error:
                outcome.error = first_line(error)
                running.remove(who)
                continue
            if i >= warmup:
                outcome.seconds.append(seconds)
    return outcomes


def timed(
    work: Work, device: torch.device, clock: Clock = time.perf_counter
) -> tuple[float, object]:
    """Return the seconds of one call, and its result."""
    if device.type != 'cuda':
        start = clock()
        result = work()
        return clock() - start, result
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    result = work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000, result


def peak_memory(work: Work, device: torch.device) -> int:
    """Measure the bytes that one call adds at its peak.

    On a CPU this needs a fresh process, see `memory_of`, and Linux.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # what making the inputs has left behind
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
    before = _of_process('VmRSS')
    work()
    return _of_process('VmHWM') - before


def memory_of(command: list[str]) -> tuple[int | None, str | None]:
    """Run a command that prints what `peak_memory` returns as its last word.

    Args:
        command (list[str]): A script and its options; this Python runs it.

    Returns:
        tuple[int | None, str | None]: Bytes, or the reason of a failure.
    """
    child = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False
    )
    if child.returncode == 0:
        return int(child.stdout.split()[-1]), None
    lines = child.stderr.strip().splitlines() or [f'status {child.returncode}']
    if child.returncode < 0:
        lines = [f'ended by signal {-child.returncode}']
    return None, shortened(lines[-1].removeprefix('error: '))


def bound_memory() -> None:
    """Let this process fail instead of the machine if a contender needs too much."""
    free = next(
        1024 * int(line.split()[1])
        for line in Path('/proc/meminfo').read_text().splitlines()
        if line.startswith('MemAvailable')
    )
    limit = _of_process('VmSize') + int(FREE_SHARE * free)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # Others may want memory in the meantime: then it is this process that has to go.
    Path('/proc/self/oom_score_adj').write_text('1000')


def _of_process(field_name: str) -> int:
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.split(f'{field_name}:')[1].split()[0])


def first_line(error: BaseException) -> str:
    """Format an error as one short line."""
    lines = str(error).strip().splitlines()
    return shortened(lines[0] if lines else type(error).__name__)


def shortened(line: str) -> str:
    """Shorten a line to the width of a table."""
    line = line.replace('|', '/')
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + '...'
