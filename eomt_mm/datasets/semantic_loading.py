"""Reading of label maps."""

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets import transforms

from eomt_mm.errors import UserError
from eomt_mm.registry import TRANSFORMS

from .pixels import SettlesPixels
from .reading import check_label_size

VOID = 255


@TRANSFORMS.register_module()
class LoadSemanticAnnotations(SettlesPixels, transforms.LoadAnnotations):
    """MMSeg's `LoadAnnotations`, with care; place it right after `LoadImageFromFile`.

    The image keeps the pixels as stored, 16-bit grey ones come out right, and a label
    map has the size of its image. In inferencers, without a label map, the image alone
    is looked at.

    Args:
        upright (bool): See :class:`SettlesPixels`. Defaults to False.
        **kwargs: Those of `mmseg.LoadAnnotations`.
    """

    def transform(self, results: dict) -> dict:
        """Add `gt_seg_map`, (H, W) uint8.

        Raises:
            UserError: The label map is not of the image's size, or has values that a
                byte does not hold. The image has pixels of 32 bits.
        """
        self.settle(results)
        if results.get('seg_map_path') is not None:
            results = super().transform(results)
            check_label_size(results)
        return results

    def _load_seg_map(self, results: dict) -> None:
        """Read a map, checked before it is cast; MMSeg casts 258 to 2."""
        labels = read_label_map(
            results['seg_map_path'], self.imdecode_backend, self.backend_args
        )
        reduces = results['reduce_zero_label']
        if self.reduce_zero_label not in (None, reduces):
            raise UserError(
                f'reduce_zero_label is {self.reduce_zero_label} in '
                f'LoadSemanticAnnotations and {reduces} in the dataset: leave it out '
                'of the transform'
            )
        table = label_table(reduces, results.get('label_map'))
        results['gt_seg_map'] = table[labels]
        results['seg_fields'].append('gt_seg_map')


def read_label_map(
    path: str, backend: str = 'pillow', backend_args: dict | None = None
) -> np.ndarray:
    """Read a label map as it is stored.

    Args:
        path (str): An image file.
        backend (str): MMCV's decoder. Defaults to 'pillow'.
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.

    Returns:
        np.ndarray: uint8; shape (H, W), or that of what is not a label map.

    Raises:
        UserError: There are values other than the whole numbers from 0 to 255.
    """
    content = fileio.get(path, backend_args)
    stored = mmcv.imfrombytes(content, flag='unchanged', backend=backend).squeeze()
    if stored.dtype in (np.uint8, np.bool_):
        return stored.astype(np.uint8)
    with np.errstate(invalid='ignore'):  # NaN
        labels = stored.clip(0, VOID).astype(np.uint8)
    if (labels != stored).any():
        wrong = stored[labels != stored]
        raise UserError(
            f'label map {path} has the value {wrong[0]} ({len(wrong)} of '
            f'{stored.size} pixels have such): expected whole numbers from 0 to '
            f'{VOID}, of which {VOID} is void; write it anew with 8 bits'
        )
    return labels


def label_table(reduce_zero_label: bool, label_map: dict | None) -> np.ndarray:
    """Return the class of each stored value, as MMSeg defines it.

    Args:
        reduce_zero_label (bool): Whether 0 is void and the classes start at 1.
        label_map (dict, optional): New classes by old ones.

    Returns:
        np.ndarray: Shape (256,) uint8.
    """
    table = np.arange(256)
    if reduce_zero_label:
        table = np.where((table == 0) | (table == VOID), VOID, table - 1)
    if label_map:
        table = np.array([label_map.get(value, value) for value in table.tolist()])
    return table.astype(np.uint8)
