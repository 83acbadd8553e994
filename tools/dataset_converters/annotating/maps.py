"""Maps of a release, read with errors that name the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eomt_mm.errors import UserError


def read(path: Path, look: Callable[[Image.Image], Any]) -> Any:
    """Open an image and return what `look` finds in it.

    Raises:
        UserError: If the file cannot be read.
    """
    try:
        with Image.open(path) as file:
            return look(file)
    except (OSError, SyntaxError) as error:  # what Pillow raises on broken files
        raise UserError(f'cannot read {path}: {error}') from error


def read_map(path: Path, shape: tuple[int, ...], kinds: str = 'uint8') -> np.ndarray:
    """Read a map of this shape.

    Args:
        path (Path): An image file.
        shape (tuple[int, ...]): Height and width, and channels if there are several.
        kinds (str): Names of the data types it may have. Defaults to 'uint8'.

    Raises:
        UserError: If it has another shape or type.
    """
    array = read(path, np.array)
    if array.shape != shape or array.dtype.name not in kinds.split(' or '):
        raise UserError(
            f'{path} is of shape {array.shape} and type {array.dtype}; expected '
            f'{shape} and {kinds}, as its image is {shape[1]} x {shape[0]} pixels'
        )
    return array
