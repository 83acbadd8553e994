"""Reading the panoptic maps of COCO's format."""

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.mask import BitmapMasks
from mmengine import fileio

from eomt_mm.errors import UserError
from eomt_mm.registry import TRANSFORMS

VOID = 255


@TRANSFORMS.register_module()
class LoadPanopticAnnotations(BaseTransform):
    """Load instances and label map from a panoptic PNG, and compare it with the JSON.

    Loads what MMDet's `LoadPanopticAnnotations` loads, which needs panopticapi. In
    inferencers, without ground truth, nothing is done.

    Args:
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add `gt_masks`, their boxes, labels and flags, and `gt_seg_map`.

        Instances are the things that are no crowds, with the boxes around their
        masks. The label map (H, W) uint8 holds the class of every segment and 255 for
        void and for crowds, from which nothing is learnt.

        Raises:
            UserError: If PNG and JSON disagree.
        """
        path = results.get('seg_map_path')
        if path is None:
            return results
        shape = tuple(results['ori_shape'])
        ids = self._read_ids(path)
        if ids.shape != shape:
            raise UserError(
                f'panoptic map {path} has shape {ids.shape}, its image {shape}: '
                'expected one segment per pixel'
            )
        labels = np.full(shape, VOID, np.uint8)
        listed = ids == 0
        masks, classes = [], []
        for segment in results['segments_info']:
            mask = ids == segment['id']
            if not mask.any():
                if segment.get('area') == 0:
                    continue
                raise UserError(
                    f'panoptic map {path} has no pixel of segment {segment["id"]}, '
                    'which the annotation file lists: JSON and PNG disagree'
                )
            _check_area(segment, int(mask.sum()), path)
            listed |= mask
            if not segment.get('is_crowd'):
                labels[mask] = segment['category']
            if segment['is_thing']:
                masks.append(mask.astype(np.uint8))
                classes.append(segment['category'])
        unknown = ids[~listed]
        if len(unknown):
            raise UserError(
                f'panoptic map {path} has {len(unknown)} pixels of segments such as '
                f'{unknown[0]}, which the annotation file does not list: JSON and PNG '
                'disagree'
            )
        results['gt_masks'] = BitmapMasks(masks, *shape)
        results['gt_bboxes'] = results['gt_masks'].get_bboxes(dst_type='hbox')
        results['gt_bboxes_labels'] = np.array(classes, np.int64)
        results['gt_ignore_flags'] = np.zeros(len(masks), bool)
        results['gt_seg_map'] = labels
        return results

    def _read_ids(self, path: str) -> np.ndarray:
        """Segment of each pixel, red + 256 green + 65536 blue; 0 is void."""
        rgb = mmcv.imfrombytes(
            fileio.get(path, self.backend_args),
            flag='color_ignore_orientation',
            channel_order='rgb',
            backend='pillow',
        )
        red, green, blue = rgb.astype(np.int32).transpose(2, 0, 1)
        return red + 256 * green + 65536 * blue


def _check_area(segment: dict, pixels: int, path: str) -> None:
    """The panoptic quality trusts the areas of the annotation file."""
    area = segment.get('area')
    # Some tools count a few pixels at borders otherwise.
    if area is not None and abs(area - pixels) > max(16, 0.01 * pixels):
        raise UserError(
            f'panoptic map {path} has {pixels} pixels of segment {segment["id"]}, but '
            f'its area in the annotation file is {area}: JSON and PNG disagree. Were '
            'the PNGs resized? Then write the new areas into the JSON'
        )
