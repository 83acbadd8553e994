"""Sizes and places of what the network sees at testing, in plain numbers.

The pipelines, the segmentor and `deploy`, which has no PyTorch, share them.
"""

import math


def fitted_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image that is just to fit inside `size`.

    Args:
        height (int): Of the image, in pixels.
        width (int): Of the image, in pixels.
        size (tuple[int, int]): Height and width to fit into.

    Returns:
        tuple[int, int]: New height and width, rounded, at least one pixel.
    """
    factor = min(size[0] / height, size[1] / width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def short_side_size(
    height: int, width: int, size: int, max_aspect: float
) -> tuple[int, int]:
    """Return the size of an image whose short side is to be `size`.

    A strip longer than `max_aspect` to one is bounded by its long side instead:
    one row of 500 pixels would otherwise become 512 x 256000.

    Args:
        height (int): Of the image, in pixels.
        width (int): Of the image, in pixels.
        size (int): Short side asked for.
        max_aspect (float): Longest long side, in multiples of `size`.

    Returns:
        tuple[int, int]: New height and width, rounded, at least one pixel.
    """
    factor = max(size / height, size / width)
    factor = min(factor, max_aspect * size / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def window_starts(length: int, size: int) -> list[int]:
    """Return the first pixels of evenly spaced windows that cover a side.

    Args:
        length (int): Side of the image in pixels, at least `size`.
        size (int): Side of the window in pixels.

    Returns:
        list[int]: ceil(length / size) starts, from 0 to length - size.
    """
    count = math.ceil(length / size)
    if count == 1:
        return [0]
    overlap = (count * size - length) / (count - 1)
    starts = [int(i * (size - overlap)) for i in range(count)]
    # The float product can end a pixel short of the border (lengths beyond seven
    # windows of 640), which would leave the last column without any window.
    starts[-1] = length - size
    return starts
