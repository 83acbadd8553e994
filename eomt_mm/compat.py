"""Differences between the stock OpenMMLab packages and their maintained fork, onedl."""

from collections.abc import Iterator
from typing import Any


class StandingIterator:
    """Batches that already stand where a resumed training goes on.

    MMEngine's loop asks for each batch that was trained on once more. The fork's loop
    calls `skip_iter` instead, or nothing at all.

    Args:
        batches (Iterator): Yields the batch to train on next.
        replaced (Iterator): The loop's own iterator, which tells the two apart.
        done (int): Iterations that were trained.
    """

    def __init__(self, batches: Iterator, replaced: Iterator, done: int) -> None:
        self._batches = batches
        self._asked_again = 0 if hasattr(replaced, 'skip_iter') else done

    def __iter__(self) -> 'StandingIterator':
        return self

    def __next__(self) -> Any:
        if self._asked_again:
            self._asked_again -= 1
            return None
        return next(self._batches)

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: the batches stand at the right place."""
