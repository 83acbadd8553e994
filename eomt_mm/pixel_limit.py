"""The limit on the pixels of an image file.

Pillow refuses images above a limit, as a small file may hold billions of equal pixels.
"""

import os
import re

from PIL import Image

from eomt_mm.errors import UserError

VARIABLE = 'EOMT_MM_MAX_MEGAPIXELS'
_SIZE = re.compile(r'Image size \((\d+) pixels\)')


def apply_limit() -> None:
    """Set Pillow's limit to that of the environment, if there is one.

    An environment variable reaches the data workers and the processes of a launcher.

    Raises:
        UserError: If the variable is not a positive number.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return
    try:
        megapixels = float(text)
        limit = round(megapixels * 1e6)
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise UserError(f'{VARIABLE}={text}: expected a number, such as 400')
    # Pillow warns above its number and refuses above twice that.
    Image.MAX_IMAGE_PIXELS = -(-limit // 2)


def too_large(error: object) -> str:
    """Explain Pillow's `DecompressionBombError`, or its text."""
    found = _SIZE.search(str(error))
    size = f'{int(found[1]) / 1e6:,.0f} megapixels' if found else 'too many pixels'
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
    return (
        f'it has {size}, and the limit is {limit:,.0f}: set the environment variable '
        f'{VARIABLE} to more, or cut the image into parts'
    )
