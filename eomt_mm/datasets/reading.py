"""Reading of images and labels, with errors that name the file.

MM's own `LoadImageFromFile`, which inferencers look for by name, and the annotation
loaders do the reading, with `imdecode_backend='pillow'`: Pillow raises on a truncated
file where OpenCV may return what it has. Grey, palette and RGBA files come out as BGR
(alpha is dropped); `pixels.py` decides on EXIF orientation.
"""

import logging

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.logging import print_log
from PIL import Image

from eomt_mm.errors import UserError
from eomt_mm.pixel_limit import too_large
from eomt_mm.registry import TRANSFORMS

from .multi_band import LoadMultiBandImage, read_bands
from .pixels import announce_removal


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
        if labels.ndim < 2 and 1 in shape and labels.size == max(shape):
            results[key] = labels.reshape(shape)
        elif labels.ndim == 3:
            raise UserError(
                f'label map {results.get("seg_map_path")} has {labels.shape[2]} '
                'channels, expected one: is it a picture of the labels? Write the '
                'numbers of the classes as grey values'
            )
        elif labels.shape != shape:
            raise UserError(
                f'label map {results.get("seg_map_path")} has shape '
                f'{labels.shape}, its image {shape}; it must be one value per '
                'pixel of the image as stored. If the labels were drawn on the photo '
                'turned by its EXIF orientation, set upright=True in the transform '
                'that loads them'
            )


@TRANSFORMS.register_module()
class CheckLabelSize(BaseTransform):
    """Deprecated: `LoadSemanticAnnotations` does this."""

    def __init__(self) -> None:
        announce_removal('eomt_mm.CheckLabelSize')

    def transform(self, results: dict) -> dict:
        """See :func:`check_label_size`."""
        check_label_size(results)
        return results


def fault_of(
    path: str, backend_args: dict | None = None, bands: bool = False
) -> str | None:
    """Find out why an image file cannot be read.

    Args:
        path (str): The file.
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.
        bands (bool): Whether `LoadMultiBandImage` reads it. Defaults to False.

    Returns:
        str | None: The fault in a few words, or None if the file can be read.
    """
    try:
        content = fileio.get(path, backend_args)
        if not content:
            return 'the file is empty'
        if bands:
            read_bands(path, backend_args)
            return None
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
                way_out = self.labels_advice or (
                    'mend or remove the file, or train with '
                    'train_dataloader.dataset.skip_unreadable=True'
                )
                raise UserError(f'cannot read {unreadable}; {way_out}') from error
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
    def labels_advice(self) -> str:
        """What to do where label maps are missing or of another kind, if known."""
        return ''

    @property
    def num_skipped(self) -> int:
        """Number of images skipped so far, over all workers of this process."""
        return int(self._skipped.sum())

    def _find_unreadable(self, idx: int) -> str | None:
        """Name the file of image `idx` that cannot be read, and its fault."""
        info = self.get_data_info(idx)
        backend_args = getattr(self, 'backend_args', None)
        steps = self.pipeline.transforms
        bands = any(isinstance(step, LoadMultiBandImage) for step in steps)
        for key, has_bands in (('img_path', bands), ('seg_map_path', False)):
            path = info.get(key)
            if path and (fault := fault_of(path, backend_args, has_bands)):
                return f'{path}: {fault}'
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
