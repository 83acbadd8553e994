"""Reading of images with any number of bands: TIFF, NumPy arrays, PNG."""

import io
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from PIL import Image

from eomt_mm.bands import check_numbers
from eomt_mm.errors import UserError
from eomt_mm.registry import TRANSFORMS

_SHOWN = (2, 98)  # percentiles that are black and white in a picture
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two: files beyond 4 GiB
_NPY = b'\x93NUMPY'


@TRANSFORMS.register_module()
class LoadMultiBandImage(BaseTransform):
    """MM's `LoadImageFromFile` for images of 1, 2, 4 or more bands.

    Bands keep the order of the file (MM's loader turns RGB to BGR), and values their
    scale: bytes stay bytes, all other types become float32. EXIF orientation is left
    alone.

    Args:
        bands (Sequence[int], optional): Bands to take, from 0, in this order. Defaults
            to all.
        picture (Sequence[int], optional): Bands of the file, among those that are
            taken, that are red, green and blue in pictures. Defaults to the first
            three, or to the first one in grey where there are fewer.
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.

    Raises:
        UserError: If a number of a band is negative or not a whole one, or if a band of
            the picture is not taken.
    """

    def __init__(
        self,
        bands: Sequence[int] | None = None,
        picture: Sequence[int] | None = None,
        backend_args: dict | None = None,
    ) -> None:
        check_numbers('LoadMultiBandImage', bands=bands, picture=picture)
        self.bands = None if bands is None else list(bands)
        self.picture = None if picture is None else list(picture)
        self.backend_args = backend_args
        if self.picture is not None and len(self.picture) not in (1, 3):
            raise UserError(
                f'LoadMultiBandImage: picture={self.picture}; give three bands, for '
                'red, green and blue, or one'
            )
        lost = set(self.picture or ()) - set(self.bands or self.picture or ())
        if lost:
            raise UserError(
                f'LoadMultiBandImage: picture={self.picture} shows band {min(lost)}, '
                f'which bands={self.bands} does not take; choose among these'
            )

    def transform(self, results: dict) -> dict:
        """Add `img`, (H, W, bands), uint8 or float32, its shapes, and `bands`.

        Raises:
            UserError: If the file lacks a band, or has values that are not finite.
        """
        path = results['img_path']
        image = read_bands(path, self.backend_args)
        count = image.shape[2]
        wanted = (*(self.bands or ()), *(self.picture or ()))
        beyond = [band for band in wanted if band >= count]
        if beyond:
            raise UserError(
                f'{path} has {count} bands, 0 to {count - 1}, and band {beyond[0]} is '
                'asked for: mend bands and picture of LoadMultiBandImage'
            )
        if self.bands is not None:
            image = image[..., self.bands]
        if image.dtype != np.uint8:
            image = image.astype(np.float32)
            broken = np.count_nonzero(~np.isfinite(image))
            if broken:
                raise UserError(
                    f'{path} has {broken} values that are NaN or infinite, as some '
                    'files mark pixels without data: write 0 there, and 255 into the '
                    'label map'
                )
        results['img'] = np.ascontiguousarray(image)
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        results['bands'] = self.bands or list(range(count))
        return results

    def paint(self, image: np.ndarray) -> np.ndarray:
        """Return a picture of what this loader has read.

        Bytes are shown as they are. Other values are stretched in each band, so that
        two percent of its pixels are black and two percent white.

        Args:
            image (np.ndarray): Shape (H, W, bands); may be resized or flipped.

        Returns:
            np.ndarray: RGB, shape (H, W, 3), uint8.
        """
        count = image.shape[2]
        shown = [0, 1, 2] if count >= 3 else [0]
        if self.picture is not None:
            taken = self.bands or list(range(count))
            shown = [taken.index(band) for band in self.picture]
        rgb = image[..., shown]
        if rgb.dtype != np.uint8:
            low, high = np.percentile(rgb, _SHOWN, axis=(0, 1))
            rgb = (rgb - low) / np.maximum(high - low, 1e-12)
            rgb = (255 * rgb.clip(0, 1)).round().astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(rgb, (*image.shape[:2], 3)))


def read_bands(path: str, backend_args: dict | None = None) -> np.ndarray:
    """Read all bands of an image as they are stored.

    Args:
        path (str): A TIFF file (one image of any number of bands, or one band a page),
            an array (H, W, bands) or (H, W) of `numpy.save`, or what Pillow reads.
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.

    Returns:
        np.ndarray: Shape (H, W, bands).

    Raises:
        UserError: If it is not an image of bands, or if tifffile is missing.
    """
    content = fileio.get(path, backend_args)
    if content.startswith(_TIFF):
        image = _read_tiff(content, path)
    elif content.startswith(_NPY):
        image = np.load(io.BytesIO(content), allow_pickle=False)
    else:
        with Image.open(io.BytesIO(content)) as file:
            # The indices of a palette are not bands.
            image = np.array(file.convert('RGB') if file.mode == 'P' else file)
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.dtype.kind not in 'buif' or 0 in image.shape:
        raise UserError(
            f'{path} holds an array of shape {image.shape} and type {image.dtype}; '
            'expected numbers of shape (height, width, bands) or (height, width)'
        )
    return image


def _read_tiff(content: bytes, path: str) -> np.ndarray:
    try:
        import tifffile
    except ImportError as error:
        raise UserError(
            f'{path} is a TIFF file, which the package tifffile reads: pip install '
            'tifffile'
        ) from error
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        series = file.series[0]
        axes, image = series.axes, series.asarray()
    # Bands lie in front of the pixels, or behind them, or on pages of their own.
    if image.ndim == 3 and 'Y' in axes and 'X' in axes:
        order = [axes.index('Y'), axes.index('X')]
        (other,) = {0, 1, 2} - set(order)
        image = image.transpose(*order, other)
    return image
