"""The bytes of an upload become pixels, within limits and in memory alone."""

import io
import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from eomt_mm.deploy.predictor import load_photo
from eomt_mm.errors import UserError

# Pillow's other readers are rare among photos, and one of them starts Ghostscript.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF')
# Long side of what the browser gets, in pixels: more than a screen shows.
SHOWN_SIDE = 2048
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Photo:
    """A photo as the network sees it before resizing: upright, RGB, 8 bits.

    Attributes:
        name (str): File name, for headings and downloads; nothing is opened by it.
        pixels (np.ndarray): Shape (H, W, 3) uint8.
        seconds (float): Time of reading.
        note (str): What the user should know of the reading, or nothing.
    """

    name: str
    pixels: np.ndarray
    seconds: float = 0.0
    note: str = ''

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[:2]

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width on the page, at most `SHOWN_SIDE`."""
        scale = min(1.0, SHOWN_SIDE / max(self.size))
        return tuple(max(1, round(side * scale)) for side in self.size)

    @cached_property
    def jpeg(self) -> bytes:
        """The photo for the browser."""
        picture = Image.fromarray(self.pixels)
        if self.shown_size != self.size:
            picture = picture.resize(self.shown_size[::-1], Image.BILINEAR)
        file = io.BytesIO()
        picture.save(file, 'JPEG', quality=JPEG_QUALITY, subsampling=0)
        return file.getvalue()


def read_photo(content: bytes, megapixels: float) -> tuple[np.ndarray, str]:
    """Read a photo.

    Args:
        content (bytes): A file, of any kind.
        megapixels (float): The most pixels, in millions.

    Returns:
        tuple[np.ndarray, str]: Shape (H, W, 3) uint8 in RGB, and a note for the user.

    Raises:
        UserError: The file is no photo, is damaged, or has too many pixels.
    """
    if not content:
        raise UserError('the file is empty: choose a photo')
    # Sizes are compared here, before any pixel is decoded.
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as file:
                width, height = file.size
                frames = getattr(file, 'n_frames', 1)
                animated = file.format != 'TIFF' and frames > 1 and file.format != 'MPO'
        except Image.DecompressionBombError as error:
            raise UserError(
                f'the photo has too many pixels: at most {megapixels:g} megapixels; '
                'make it smaller, or start the page with a larger --max-megapixels'
            ) from error
        except Exception as error:  # Pillow raises what each format's reader raises
            raise UserError(
                'the file is not a photo that can be read: choose a JPEG, PNG, WebP, '
                'GIF, BMP or TIFF file'
            ) from error
        if width * height > megapixels * 1e6:
            raise UserError(
                f'the photo has {width * height / 1e6:.0f} megapixels ({width} x '
                f'{height}), and at most {megapixels:g} are taken: make it smaller, or '
                'start the page with a larger --max-megapixels'
            )
        try:
            pixels = load_photo(io.BytesIO(content))
        except UserError as error:
            raise UserError(
                'the photo is damaged or cut off: save it again, or choose another one'
            ) from error
    note = f'An animation of {frames} pictures: this is the first.' if animated else ''
    return pixels, note
