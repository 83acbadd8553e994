"""A progress bar that leaves the next line to whatever comes after it."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mmengine.utils import track_iter_progress

T = TypeVar('T')


def track(steps: Iterable[T], total: int) -> Iterator[T]:
    """Show how far an iteration is.

    Args:
        steps (Iterable): What to iterate over.
        total (int): Number of steps.

    Yields:
        T: The steps. The line of the bar is ended, also where a step raises: an error
        is one line of its own.
    """
    try:
        yield from track_iter_progress((steps, total))
    finally:
        print(flush=True)
