"""The faster of several ways to compute the same, timed on the machine at hand.

Which library is the faster one differs from processor to processor: what doubles the
speed on one halves it on another. So it is tried, once in a process for each shape and
number of threads, and the log says what was found.
"""

import time
from collections.abc import Callable, Hashable, Mapping

import torch
from mmengine.logging import print_log

# Of a way, a round is what a machine with other work delays least.
LEAST_ROUNDS = 3
ENOUGH_SECONDS = 0.05
# What another way must gain over the first one, PyTorch's own: more than noise.
LEAST_GAIN = 0.03

_chosen: dict[Hashable, str] = {}


def fastest(
    what: str,
    shape: tuple[Hashable, ...],
    ways: Mapping[str, Callable[[], object]],
    least_gain: float = LEAST_GAIN,
) -> str:
    """Time each way, in turns, and name the one to use.

    Args:
        what (str): What is computed, for the log.
        shape (tuple): Sizes and dtype, whatever the time depends on.
        ways (Mapping[str, Callable]): By name; the first one is used unless another is
            faster.
        least_gain (float): Part of the first one's time that another must save.
            Defaults to `LEAST_GAIN`.

    Returns:
        str: Its name; the same one for the rest of the process.
    """
    key = (what, shape, tuple(ways), torch.get_num_threads())
    if key not in _chosen:
        seconds = _times(ways)
        first = next(iter(ways))
        best = min(seconds, key=seconds.get)
        is_faster = seconds[best] <= (1 - least_gain) * seconds[first]
        _chosen[key] = best if is_faster else first
        figures = ', '.join(
            f'{name} {1e3 * taken:.1f} ms ({seconds[first] / taken:.2f}x)'
            for name, taken in seconds.items()
        )
        print_log(f'{what}: {_chosen[key]}; {figures}', logger='current')
    return _chosen[key]


def _times(ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each way, the least of some rounds in turns."""
    for run in ways.values():  # what is made once is made now
        run()
    # What else a machine does is not counted where one thread does all the work.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = dict.fromkeys(ways, float('inf'))
    start, rounds = time.perf_counter(), 0
    while rounds < LEAST_ROUNDS or time.perf_counter() - start < ENOUGH_SECONDS:
        rounds += 1
        for name, run in ways.items():
            before = clock()
            run()
            seconds[name] = min(seconds[name], clock() - before)
    return seconds
