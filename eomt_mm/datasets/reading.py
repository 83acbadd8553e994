"""Reading of images and labels, with errors that name the file.

MM's own `LoadImageFromFile`, which inferencers look up by name, and the annotation
loaders read with `imdecode_backend='pillow'`: Pillow raises on a truncated file where
OpenCV may return a part. Grey, palette and RGBA files become BGR (alpha is dropped).
EXIF orientation is applied to images, not to label maps.
"""

import functools
import io
import logging

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image, ImageOps

from eomt_mm.errors import UserError
from eomt_mm.pixel_limit import too_large
from eomt_mm.registry import TRANSFORMS

ORIENTATION = 0x0112  # EXIF's tag


def bring_to_eight_bits(results: dict, backend_args: dict | None = None) -> None:
    """Bring a 16-bit grey image to 8 bits by its high byte.

    Pillow clips it at 255 instead, which leaves a white image. It takes the high byte
    of 16-bit colour. Only images that are grey are read again.

    Args:
        results (dict): `img`, replaced if the file at `img_path` is a 16-bit grey one.
        backend_args (dict, optional): File backend of the loader. Defaults to None.

    Raises:
        UserError: If the pixels have 32 bits, as in some TIFF files.
    """
    image, path = results['img'], results.get('img_path')
    if path is None or not np.array_equal(image[..., 0], image[..., 2]):
        return
    with Image.open(io.BytesIO(fileio.get(path, backend_args))) as file:
        if file.mode == 'F':
            raise UserError(
                f'{path} has 32-bit floating-point pixels, whose range nothing '
                'tells: convert it to 8 or 16 bits'
            )
        if not file.mode.startswith('I'):
            return
        pixels = _as_loaded(np.array(file), file, results)
    if pixels.shape != image.shape[:2]:
        return  # resized before its annotations are loaded: an older pipeline
    if pixels.min() < 0 or pixels.max() > 65535:
        raise UserError(
            f'{path} has 32-bit pixels from {pixels.min()} to '
            f'{pixels.max()}: convert it to 8 or 16 bits (0 to 65535)'
        )
    high_byte = (pixels >> 8).astype(image.dtype)
    if results.get('flip'):  # before, in test-time augmentation
        high_byte = mmcv.imflip(high_byte, results['flip_direction'])
    results['img'] = np.repeat(high_byte[..., None], 3, axis=-1)


def check_label_size(results: dict) -> None:
    """Check that the label maps in `seg_fields` fit their image.

    MM's loader squeezes maps that are one pixel high or wide: they get their shape
    back. Without a label map, as in inferencers, nothing is done.

    Args:
        results (dict): A sample with `ori_shape`, height and width.

    Raises:
        UserError: If a map does not have the image's height and width.
    """
    shape = tuple(results['ori_shape'])
    for key in results.get('seg_fields', []):
        labels = results[key]
        if labels.ndim == 1 and 1 in shape and labels.size == max(shape):
            results[key] = labels.reshape(shape)
        elif labels.shape != shape:
            raise UserError(
                f'label map {results.get("seg_map_path")} has shape '
                f'{labels.shape}, its image {shape}; it must be one value per '
                'pixel. If the image is turned by its EXIF orientation and the '
                "label map is not, set color_type='color_ignore_orientation' in "
                'LoadImageFromFile'
            )


@functools.cache  # one line, not one for each dataset
def _announce_removal(name: str) -> None:
    print_log(
        f'{name} will be removed in the next release: eomt_mm.LoadSemanticAnnotations, '
        'LoadPanopticAnnotations and LoadInstanceAnnotations do its work; leave it out',
        logger='current',
        level=logging.WARNING,
    )


@TRANSFORMS.register_module()
class DecodeSixteenBit(BaseTransform):
    """Deprecated: the annotation loaders do this. It will go in the next release.

    Args:
        backend_args (dict, optional): File backend of the loader. Defaults to None.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        _announce_removal('eomt_mm.DecodeSixteenBit')
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """See :func:`bring_to_eight_bits`."""
        bring_to_eight_bits(results, self.backend_args)
        return results


def _as_loaded(pixels: np.ndarray, file: Image.Image, results: dict) -> np.ndarray:
    """Turn 16-bit pixels (H, W) by EXIF orientation if the loader has done so.

    The loader's clipped pixels show it. If all are white, a sample with annotations
    keeps the stored pixels, to which annotations belong.
    """
    orientation = file.getexif().get(ORIENTATION, 1)
    if orientation == 1:
        return pixels
    places = np.arange(pixels.size, dtype=np.int32).reshape(pixels.shape)
    places = Image.fromarray(places)
    places.getexif()[ORIENTATION] = orientation
    turned = pixels.ravel()[np.array(ImageOps.exif_transpose(places))]
    loaded = results['img'][..., 0]
    fits = [
        way.shape == loaded.shape and np.array_equal(np.minimum(way, 255), loaded)
        for way in (pixels, turned)
    ]
    if fits[0] != fits[1]:
        return pixels if fits[0] else turned
    if pixels.shape != turned.shape:
        return pixels if pixels.shape == loaded.shape else turned
    labelled = any(results.get(key) for key in ('seg_map_path', 'instances'))
    return pixels if labelled else turned


@TRANSFORMS.register_module()
class CheckLabelSize(BaseTransform):
    """Deprecated: `LoadSemanticAnnotations` does this."""

    def __init__(self) -> None:
        _announce_removal('eomt_mm.CheckLabelSize')

    def transform(self, results: dict) -> dict:
        """See :func:`check_label_size`."""
        check_label_size(results)
        return results


def fault_of(path: str, backend_args: dict | None = None) -> str | None:
    """Find out why an image file cannot be read.

    Args:
        path (str): The file.
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.

    Returns:
        str | None: The fault in a few words, or None if the file can be read.
    """
    try:
        content = fileio.get(path, backend_args)
        if not content:
            return 'the file is empty'
        mmcv.imfrombytes(content, flag='unchanged', backend='pillow')
    except FileNotFoundError:
        return 'there is no such file'
    except Image.DecompressionBombError as error:
        return too_large(error)
    except Image.UnidentifiedImageError:
        return 'it is not an image in a known format'
    except Exception as error:  # Pillow raises what each format's decoder raises
        return str(error)
    return None


class ReadableDataset:
    """Mixin for MM datasets: reading failures name the file, or are skipped.

    Args:
        skip_unreadable (bool): Training only: leave out files that cannot be read,
            count them over all workers, and log each once. Defaults to False.
    """

    def __init__(self, *args, skip_unreadable: bool = False, **kwargs) -> None:
        self.skip_unreadable = skip_unreadable
        super().__init__(*args, **kwargs)
        if skip_unreadable and self.test_mode:
            raise UserError(
                'skip_unreadable=True with test_mode=True: a score on fewer images '
                'would pass for the real one; use skip_unreadable in training only'
            )

    def full_init(self) -> None:
        """Load the annotations, then share one flag per image with the workers."""
        if self._fully_initialized:
            return
        super().full_init()
        # Flags instead of a counter: setting one twice counts the file once.
        self._skipped = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def load_data_list(self) -> list[dict]:
        """List the images.

        Raises:
            UserError: If there are no images.
        """
        wanted = f'{type(self).__name__} expects images in {self.data_prefix}'
        way_out = 'pass --cfg-options data_root=DIR, or mend data_prefix or img_suffix'
        try:
            data_list = super().load_data_list()
        except FileNotFoundError as error:
            raise UserError(
                f'{error.filename} does not exist; {wanted}; {way_out}'
            ) from error
        if not data_list:
            raise UserError(f'no image found; {wanted}; {way_out}')
        return data_list

    def prepare_data(self, idx: int) -> dict | None:
        """Run the pipeline on one image.

        Returns:
            dict | None: The sample; None if the image is skipped, upon which
            MMEngine takes another one at random.

        Raises:
            UserError: If the image or its label map cannot be read.
        """
        try:
            sample = super().prepare_data(idx)
        except UserError:
            raise
        except Exception as error:
            unreadable = self._find_unreadable(idx)
            if unreadable is None:
                raise
            if not self.skip_unreadable:
                raise UserError(
                    f'cannot read {unreadable}; mend or remove the file, or train '
                    'with train_dataloader.dataset.skip_unreadable=True'
                ) from error
            self._skip(idx, unreadable)
            return None
        return sample

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the classes of image `idx`, by which ClassBalancedDataset repeats it.

        MM's semantic datasets do not support this: the label map is read here.

        Raises:
            UserError: If the pipeline loads no label map.
        """
        info = self.get_data_info(idx)
        if 'instances' in info:
            return super().get_cat_ids(idx)
        for step in self.pipeline.transforms:
            info = step(info)
            if info.get('gt_seg_map') is not None:
                return [c for c in np.unique(info['gt_seg_map']).tolist() if c != 255]
        raise UserError(
            'ClassBalancedDataset repeats images by their classes, and the pipeline of '
            f'{type(self).__name__} loads no label map: add LoadAnnotations'
        )

    @property
    def num_skipped(self) -> int:
        """Number of images skipped so far, over all workers of this process."""
        return int(self._skipped.sum())

    def _find_unreadable(self, idx: int) -> str | None:
        """Name the file of image `idx` that cannot be read, and its fault."""
        info = self.get_data_info(idx)
        backend_args = getattr(self, 'backend_args', None)
        for key in ('img_path', 'seg_map_path'):
            if info.get(key) and (fault := fault_of(info[key], backend_args)):
                return f'{info[key]}: {fault}'
        return None

    def _skip(self, idx: int, unreadable: str) -> None:
        if not self._skipped[idx]:
            self._skipped[idx] = True
            print_log(
                f'skipped {unreadable} ({self.num_skipped} of {len(self)} skipped)',
                logger='current',
                level=logging.WARNING,
            )
        if self.num_skipped == len(self):
            raise UserError(
                f'none of the {len(self)} images can be read; the last one: '
                f'{unreadable}'
            )
