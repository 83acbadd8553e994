"""The pixels of a photo: EXIF orientation and bit depth, decided here alone.

Label maps and annotations belong to the pixels as they are stored, so that a photo
with labels keeps them as stored, as in the reference; a photo without labels, as in
inferencers, is turned upright by MM's `LoadImageFromFile`. 16-bit grey photos come to
8 bits by their high byte.
"""

import functools
import io
import logging

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image, ImageOps

from eomt_mm.errors import UserError
from eomt_mm.registry import TRANSFORMS

ORIENTATION = 0x0112  # EXIF's tag
# Where a PNG may have an orientation.
_PNG_NOTES = (b'eXIf', b'Raw profile type', b'tiff:Orientation')


class SettlesPixels:
    """Mixin of the transforms that follow `LoadImageFromFile`.

    Args:
        upright (bool): Whether the labels were drawn on the photo turned upright by
            its EXIF orientation. Defaults to False.
    """

    backend_args: dict | None = None

    def __init__(self, *args, upright: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.upright = upright

    def settle(self, results: dict) -> None:
        """See :func:`settle_pixels`."""
        settle_pixels(results, self.backend_args, self.upright)


def settle_pixels(
    results: dict, backend_args: dict | None = None, upright: bool = False
) -> None:
    """Decide on the orientation and the bit depth of an image that was just loaded.

    Pillow clips 16-bit grey pixels at 255, which leaves a white image; 16-bit colour
    needs no help, Pillow takes the high byte there.

    Args:
        results (dict): `img`, replaced where the loader's pixels are not those wanted.
        backend_args (dict, optional): The loader's. Defaults to None.
        upright (bool): See :class:`SettlesPixels`. Defaults to False.

    Raises:
        UserError: The pixels have 32 bits, as those of some TIFF files. The image was
            resized before and cannot be turned back.
    """
    image, path = results['img'], results.get('img_path')
    # `LoadMultiBandImage` has read the pixels as stored.
    if path is None or image.ndim != 3 or 'bands' in results:
        return
    as_stored = has_labels(results) and not upright
    looks_grey = np.array_equal(image[..., 0], image[..., -1])
    if not (as_stored or looks_grey):
        return
    content = fileio.get(path, backend_args)
    with Image.open(io.BytesIO(content)) as file:
        is_turned = _is_turned(file, content)
        if file.mode.startswith(('I', 'F')):
            pixels = _high_byte(file, results, as_stored)
        elif as_stored and is_turned:
            flag = 'color_ignore_orientation'
            pixels = mmcv.imfrombytes(content, flag=flag, backend='pillow')
        else:
            return
    if image.shape[:2] not in (pixels.shape[:2], pixels.shape[1::-1]):
        if not is_turned:
            return  # resized before its annotations are loaded: an older pipeline
        raise UserError(
            f'{path} has an EXIF orientation and was resized before its labels are '
            'loaded: place the transform that loads them right after '
            'LoadImageFromFile'
        )
    if results.get('flip'):  # before, in test-time augmentation
        pixels = mmcv.imflip(pixels, results['flip_direction'])
    results['img'] = np.ascontiguousarray(pixels, dtype=image.dtype)
    results['img_shape'] = results['ori_shape'] = pixels.shape[:2]


def has_labels(results: dict) -> bool:
    """Whether a sample comes from a data set: it has a label map or instances."""
    return results.get('seg_map_path') is not None or 'instances' in results


def _is_turned(file: Image.Image, content: bytes) -> bool:
    """Whether a file says that its pixels are to be turned or mirrored."""
    # Of a PNG without EXIF in front Pillow decodes all pixels to look after them.
    if file.format == 'PNG' and not any(note in content for note in _PNG_NOTES):
        return False
    return file.getexif().get(ORIENTATION, 1) in range(2, 9)


def _high_byte(file: Image.Image, results: dict, as_stored: bool) -> np.ndarray:
    """Return the high byte of 16-bit grey pixels, shape (H, W, 3)."""
    path = results['img_path']
    if file.mode == 'F':
        raise UserError(
            f'{path} has 32-bit floating-point pixels, whose range nothing '
            'tells: convert it to 8 or 16 bits'
        )
    pixels = np.array(file)
    if not as_stored:
        pixels = _as_loaded(pixels, file, results)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise UserError(
            f'{path} has 32-bit pixels from {pixels.min()} to '
            f'{pixels.max()}: convert it to 8 or 16 bits (0 to 65535)'
        )
    return np.repeat((pixels >> 8)[..., None], 3, axis=-1)


def _as_loaded(pixels: np.ndarray, file: Image.Image, results: dict) -> np.ndarray:
    """Return 16-bit pixels (H, W), turned by EXIF if the loader has done so.

    The loader's clipped pixels tell. Where all are white, they are taken for turned.
    """
    orientation = file.getexif().get(ORIENTATION, 1)
    if orientation == 1:
        return pixels
    places = np.arange(pixels.size, dtype=np.int32).reshape(pixels.shape)
    places = Image.fromarray(places)
    places.getexif()[ORIENTATION] = orientation
    turned = pixels.ravel()[np.array(ImageOps.exif_transpose(places))]
    loaded = results['img'][..., 0]
    is_stored, is_turned = (
        way.shape == loaded.shape and np.array_equal(np.minimum(way, 255), loaded)
        for way in (pixels, turned)
    )
    if is_stored or is_turned:
        return turned if is_turned else pixels
    return pixels if pixels.shape == loaded.shape != turned.shape else turned


@functools.cache  # one line, not one for each dataset
def announce_removal(name: str) -> None:
    """Say once that a transform of this name is not needed any more."""
    print_log(
        f'{name} will be removed in the next release: eomt_mm.LoadSemanticAnnotations, '
        'LoadPanopticAnnotations and LoadInstanceAnnotations do its work; leave it out',
        logger='current',
        level=logging.WARNING,
    )


@TRANSFORMS.register_module()
class DecodeSixteenBit(SettlesPixels, BaseTransform):
    """Old name, for one more release: the annotation loaders do this.

    Args:
        backend_args (dict, optional): The loader's. Defaults to None.
        upright (bool): See :class:`SettlesPixels`. Defaults to False.
    """

    def __init__(self, backend_args: dict | None = None, upright: bool = False) -> None:
        super().__init__(upright=upright)
        announce_removal('eomt_mm.DecodeSixteenBit')
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """See :func:`settle_pixels`."""
        self.settle(results)
        return results
