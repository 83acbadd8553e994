"""How the bands of TIFF photos are read, where they have others than a photograph."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

TIFF = ('.tif', '.tiff')
# Tags of TIFF 6.0: SamplesPerPixel, ExtraSamples and a value of the latter.
_SAMPLES, _EXTRA, _ASSOCIATED_ALPHA = 277, 338, 1
_RGB = 'the first three are red, green and blue, and the rest is left out'
_GREY = 'the first is grey, and the rest is left out'
# By Pillow's mode, of which MMCV's loader makes RGB.
_READ_AS = {
    'RGB': _RGB,
    'RGBA': _RGB,
    'RGBX': _RGB,
    'CMYK': 'inks (CMYK), of which red, green and blue are made',
    'LA': 'the first is grey, and the second its transparency',
}
_DIVIDED = (
    'the first three are red, green and blue, divided by the fourth, which the files '
    'call transparency'
)


def describe_bands(paths: Iterable[str]) -> list[str]:
    """Say how bands and pages of photos are read.

    Args:
        paths (Iterable[str]): Readable image files.

    Returns:
        list[str]: A text for each way, with the first file that is read so. Empty where
        all are of other formats than TIFF, or one page of one band or three.
    """
    found: dict[str, str] = {}
    for path in paths:
        if path.lower().endswith(TIFF):
            for text in _ways(path):
                found.setdefault(text, Path(path).name)
    return [f'{text} (such as {name})' for text, name in found.items()]


def _ways(path: str) -> Iterable[str]:
    with Image.open(path) as image:
        tags = getattr(image, 'tag_v2', {})  # the name may be that of another format
        samples, pages = tags.get(_SAMPLES, 1), getattr(image, 'n_frames', 1)
        if samples not in (1, 3):
            how = _READ_AS.get(image.mode, _GREY)
            if image.mode == 'RGBA' and _ASSOCIATED_ALPHA in tags.get(_EXTRA, ()):
                how = _DIVIDED
            yield f'{samples} in TIFF files: {how}'
        if pages > 1:
            yield f'{pages} pages in TIFF files: the first is read'
