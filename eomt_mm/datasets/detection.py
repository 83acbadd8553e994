"""MMDet's panoptic and instance datasets, read with care, and the synthetic scenes."""

import mmcv
import numpy as np
from mmdet import datasets as mmdet_datasets
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.structures.mask import BitmapMasks
from mmengine import fileio

from eomt_mm.errors import UserError
from eomt_mm.registry import DATASETS, TRANSFORMS

from .reading import ReadableDataset
from .scenes import CLASSES, NUM_STUFF, PALETTE

VOID = 255


@TRANSFORMS.register_module()
class LoadPanopticAnnotations(LoadAnnotations):
    """Load instances and label map from a panoptic PNG, and compare it with the JSON.

    Loads what MMDet's `LoadPanopticAnnotations` loads, which needs panopticapi. In
    inferencers, without ground truth, nothing is done.

    Args:
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        super().__init__(with_mask=True, with_seg=True, backend_args=backend_args)

    def transform(self, results: dict) -> dict:
        """Add `gt_bboxes`, `gt_bboxes_labels`, `gt_masks` and `gt_seg_map`.

        Instances are the things that are no crowds. The label map (H, W) uint8 holds
        the class of every segment, crowds included, and 255 for void.

        Raises:
            UserError: If PNG and JSON disagree.
        """
        path = results.get('seg_map_path')
        if path is None:
            return results
        self._load_bboxes(results)
        self._load_labels(results)
        shape = tuple(results['ori_shape'])
        ids = self._read_ids(path)
        if ids.shape != shape:
            raise UserError(
                f'panoptic map {path} has shape {ids.shape}, its image {shape}: '
                'expected one segment per pixel'
            )
        labels = np.full(shape, VOID, np.uint8)
        things = []
        for segment in results['segments_info']:
            mask = ids == segment['id']
            if not mask.any():
                raise UserError(
                    f'panoptic map {path} has no pixel of segment {segment["id"]}, '
                    'which the annotation file lists: JSON and PNG disagree'
                )
            labels[mask] = segment['category']
            if segment['is_thing']:
                things.append(mask.astype(np.uint8))
        unknown = ids[(labels == VOID) & (ids != 0)]
        if len(unknown):
            raise UserError(
                f'panoptic map {path} has {len(unknown)} pixels of segments such as '
                f'{unknown[0]}, which the annotation file does not list: JSON and PNG '
                'disagree'
            )
        results['gt_masks'] = BitmapMasks(things, *shape)
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


class CocoFormat(ReadableDataset):
    """Mixin for MM datasets in COCO's format: annotations are checked while parsed."""

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image.

        Raises:
            UserError: If a category is unknown, or is another one than the class.
        """
        for annotation in raw_data_info['raw_ann_info']:
            self._check(annotation, raw_data_info['raw_img_info'])
        return super().parse_data_info(raw_data_info)

    def _check(self, annotation: dict, image: dict) -> None:
        number = annotation['category_id']
        category, label = self.coco.cats.get(number), self.cat2label.get(number)
        where = f'annotation {annotation["id"]} of {image["file_name"]}'
        if category is None:
            raise UserError(
                f'{self.ann_file}: {where} has category_id {number}, but the '
                f'categories of the file are {_few(self.coco.cats)}'
            )
        if label is None:
            return  # not among the classes that were asked for
        wanted = self.metainfo['classes'][label]
        if category['name'] != wanted:
            raise UserError(
                f'{self.ann_file}: {where} is a {category["name"]!r}, but its place '
                f'in the file is that of class {wanted!r}: list the categories of '
                'the file in the order of metainfo.classes, none left out'
            )


class PanopticFormat(CocoFormat):
    """The same for panoptic segments, every one of which needs a class."""

    def _check(self, annotation: dict, image: dict) -> None:
        super()._check(annotation, image)
        if annotation['category_id'] not in self.cat2label:
            name = self.coco.cats[annotation['category_id']]['name']
            raise UserError(
                f'{self.ann_file}: segment {annotation["id"]} of {image["file_name"]} '
                f'is a {name!r}, which is not among the {len(self.cat2label)} classes '
                f'of {type(self).__name__}: {_few(self.metainfo["classes"])}'
            )


class InstanceFormat(CocoFormat):
    """The same for instances, every one of which needs a mask."""

    def _check(self, annotation: dict, image: dict) -> None:
        super()._check(annotation, image)
        mask, size = annotation.get('segmentation'), [image['height'], image['width']]
        where = f'annotation {annotation["id"]} of {image["file_name"]}'
        if not mask:
            raise UserError(
                f'{self.ann_file}: {where} has no segmentation, and a box is not '
                'enough: add its mask (polygons or RLE) or remove the annotation'
            )
        if isinstance(mask, dict) and list(mask['size']) != size:
            raise UserError(
                f'{self.ann_file}: the mask of {where} has size {mask["size"]}, its '
                f'image {size}'
            )


@DATASETS.register_module()
class CocoPanopticDataset(PanopticFormat, mmdet_datasets.CocoPanopticDataset):
    """COCO panoptic, 80 classes of things and 53 of stuff.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmdet.CocoPanopticDataset`.
    """


@DATASETS.register_module()
class CocoInstanceDataset(InstanceFormat, mmdet_datasets.CocoDataset):
    """COCO instances, 80 classes.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmdet.CocoDataset`.
    """


@DATASETS.register_module()
class ADE20KPanopticDataset(PanopticFormat, mmdet_datasets.ADE20KPanopticDataset):
    """ADE20K panoptic, 100 classes of things and then 50 of stuff.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmdet.ADE20KPanopticDataset`.
    """


@DATASETS.register_module()
class ScenesPanopticDataset(CocoPanopticDataset):
    """The synthetic scenes: 5 classes of things, then sky and ground.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmdet.CocoPanopticDataset`.
    """

    METAINFO = dict(
        classes=CLASSES[NUM_STUFF:] + CLASSES[:NUM_STUFF],
        thing_classes=CLASSES[NUM_STUFF:],
        stuff_classes=CLASSES[:NUM_STUFF],
        palette=[tuple(c) for c in PALETTE[NUM_STUFF:] + PALETTE[:NUM_STUFF]],
    )


@DATASETS.register_module()
class ScenesInstanceDataset(CocoInstanceDataset):
    """The things of the synthetic scenes, 5 classes.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmdet.CocoDataset`.
    """

    METAINFO = dict(
        classes=CLASSES[NUM_STUFF:],
        palette=[tuple(c) for c in PALETTE[NUM_STUFF:]],
    )


def _few(values) -> str:
    """The first of many values, for an error."""
    shown = ', '.join(str(value) for value in list(values)[:5])
    return shown if len(values) <= 5 else f'{shown}, ... ({len(values)} in all)'
