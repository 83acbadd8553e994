"""Reading of panoptic maps in COCO's format."""

import io

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.mask import BitmapMasks
from mmengine import fileio
from PIL import Image

from eomt_mm.errors import UserError
from eomt_mm.evaluation.panoptic_quality import rgb2id
from eomt_mm.registry import TRANSFORMS

from .pixels import SettlesPixels

VOID = 255


@TRANSFORMS.register_module()
class LoadPanopticAnnotations(SettlesPixels, BaseTransform):
    """Load instances and label map from a panoptic PNG, and compare it with the JSON.

    It replaces MMDet's `LoadPanopticAnnotations`, which needs panopticapi. In
    inferencers, without ground truth, it does nothing.

    Args:
        with_mask (bool): Whether instances are loaded, each with a mask. The evaluators
            do not need them. Defaults to True.
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.
        upright (bool): See :class:`SettlesPixels`. Defaults to False.
    """

    def __init__(
        self,
        with_mask: bool = True,
        backend_args: dict | None = None,
        upright: bool = False,
    ) -> None:
        super().__init__(upright=upright)
        self.with_mask = with_mask
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add `gt_masks`, their boxes, labels and flags, and `gt_seg_map`.

        Instances are the things that are not crowds, with the boxes around their
        masks. The label map (H, W) uint8 holds the class of every segment, and 255 for
        void and for crowds, which are not learnt. An image without an annotation in the
        JSON is all void.

        Raises:
            UserError: If PNG and JSON disagree.
        """
        self.settle(results)
        if 'segments_info' not in results:
            return results
        path, segments = results['seg_map_path'], results['segments_info']
        shape = tuple(results['ori_shape'])
        ids = np.zeros(shape, np.int32)
        if path:
            ids = read_segment_ids(path, self.backend_args)
        if ids.shape != shape:
            raise UserError(
                f'panoptic map {path} has shape {ids.shape}, its image {shape}: '
                'expected one segment per pixel of the image as stored. If the map was '
                'drawn on the photo turned by its EXIF orientation, set upright=True '
                'in LoadPanopticAnnotations'
            )
        labels = np.full(shape, VOID, np.uint8)
        is_listed = ids == 0
        found = []
        for segment in segments:
            mask = ids == segment['id']
            pixels = np.count_nonzero(mask)
            if not pixels:
                if segment['area'] == 0:
                    continue
                raise UserError(
                    f'panoptic map {path} has no pixel of segment {segment["id"]}, '
                    'which the annotation file lists: JSON and PNG disagree. Give '
                    'ann_file and data_prefix.seg of one and the same release'
                )
            _check_area(segment, pixels, path)
            is_listed |= mask
            if not segment['is_crowd']:
                labels[mask] = segment['category']
            if segment['is_thing']:
                found.append(segment)
        unknown = ids[~is_listed]
        if len(unknown):
            raise UserError(
                f'panoptic map {path} has {len(unknown)} pixels of segments such as '
                f'{unknown[0]}, which the annotation file does not list: JSON and PNG '
                'disagree. Give ann_file and data_prefix.seg of one and the same '
                'release'
            )
        results['gt_seg_map'] = labels
        if self.with_mask:
            _add_instances(results, found, ids)
        return results


def read_segment_ids(path: str, backend_args: dict | None = None) -> np.ndarray:
    """Read the segment of each pixel, red + 256 green + 65536 blue; 0 is void.

    Args:
        path (str): A panoptic map.
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.

    Returns:
        np.ndarray: Shape (H, W) int32.

    Raises:
        UserError: The image is grey.
    """
    with Image.open(io.BytesIO(fileio.get(path, backend_args))) as file:
        if file.mode not in ('RGB', 'RGBA', 'P'):
            raise UserError(
                f'panoptic map {path} is a grey image (mode {file.mode}); expected '
                'colours, of which red + 256 green + 65536 blue is the id of the '
                'segment'
            )
        return rgb2id(np.asarray(file.convert('RGB')))


def _add_instances(results: dict, segments: list[dict], ids: np.ndarray) -> None:
    masks = np.empty((len(segments), *ids.shape), np.uint8)
    for mask, segment in zip(masks, segments, strict=True):
        np.equal(ids, segment['id'], out=mask.view(bool))
    results['gt_masks'] = BitmapMasks(masks, *ids.shape)
    results['gt_bboxes'] = results['gt_masks'].get_bboxes(dst_type='hbox')
    classes = [segment['category'] for segment in segments]
    results['gt_bboxes_labels'] = np.array(classes, np.int64)
    results['gt_ignore_flags'] = np.zeros(len(segments), bool)


def _check_area(segment: dict, pixels: int, path: str) -> None:
    """Compare areas: the panoptic quality trusts those of the annotation file."""
    area = segment['area']
    # Some tools count a few pixels at borders otherwise.
    if abs(area - pixels) > max(16, 0.01 * pixels):
        raise UserError(
            f'panoptic map {path} has {pixels} pixels of segment {segment["id"]}, but '
            f'its area in the annotation file is {area}: JSON and PNG disagree. Were '
            'the PNGs resized? Then write the new areas into the JSON'
        )
