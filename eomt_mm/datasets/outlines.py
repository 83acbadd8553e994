"""Areas and boxes of many polygons at once.

A list of numbers is copied into one array for all polygons: a Python loop over the
numbers of COCO's 860,000 annotations would take several times as long.
"""

from array import array
from collections.abc import Iterator, Sequence

import numpy as np

CHUNK = 20_000  # masks in memory at a time, a copy of some 10 MB


def is_polygon(points: list) -> bool:
    """Whether x and y of three points are there."""
    return len(points) >= 6 and len(points) % 2 == 0


def has_truth_values(row: Sequence[float]) -> bool:
    """Whether JSON has true or false among numbers, which Python counts as 1 and 0."""
    return bool in map(type, row)


def rows(values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Copy rows of numbers, as JSON has them, one after the other.

    Args:
        values: Rows of any length.

    Returns:
        tuple[np.ndarray, np.ndarray]: All numbers, float64, and the length of each row.

    Raises:
        TypeError: Something is not a row, or not a number.
        OverflowError: A whole number is beyond all floats.
    """
    buffer = array('d')
    for row in values:
        buffer.fromlist(row)
    numbers = np.frombuffer(buffer)
    lengths = np.fromiter(map(len, values), int, len(values))
    # An array takes true for 1 and false for 0: few other numbers are either.
    doubtful = np.flatnonzero((numbers == 0) | (numbers == 1))
    for place in np.unique(np.searchsorted(lengths.cumsum(), doubtful, 'right')):
        if has_truth_values(values[place]):
            raise TypeError('true and false are no numbers')
    return numbers, lengths


def measured(masks: Sequence[list[list[float]]]) -> Iterator[np.ndarray]:
    """Measure masks, each of one or more polygons of three points or more.

    Args:
        masks: Outlines, each x1, y1, x2, y2, x3, y3 and so on.

    Yields:
        np.ndarray: Shape (N, 5), for the next masks: left, top, right, bottom and area
        in pixels, the areas of the polygons of a mask being added.
    """
    for start in range(0, len(masks), CHUNK):
        chunk = masks[start : start + CHUNK]
        polygons = [points for mask in chunk for points in mask]
        numbers, lengths = rows(polygons)
        x, y = numbers.reshape(-1, 2).T.copy()
        ends = np.cumsum(lengths // 2)
        starts = ends - lengths // 2
        following = np.arange(1, len(x) + 1)
        following[ends - 1] = starts  # outlines are closed
        with np.errstate(over='ignore', invalid='ignore'):  # callers check the range
            cross = x * y[following] - x[following] * y
        areas = abs(np.add.reduceat(cross, starts)) / 2
        firsts = np.cumsum([0, *map(len, chunk[:-1])])
        yield np.stack(
            [
                np.minimum.reduceat(np.minimum.reduceat(x, starts), firsts),
                np.minimum.reduceat(np.minimum.reduceat(y, starts), firsts),
                np.maximum.reduceat(np.maximum.reduceat(x, starts), firsts),
                np.maximum.reduceat(np.maximum.reduceat(y, starts), firsts),
                np.add.reduceat(areas, firsts),
            ],
            axis=1,
        )
