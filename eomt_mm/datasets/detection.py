"""MMDet's panoptic and instance datasets, read with care, and the synthetic scenes."""

import os.path as osp

from mmdet import datasets as mmdet_datasets

from eomt_mm.errors import UserError
from eomt_mm.registry import DATASETS

from . import cityscapes_labels as cityscapes
from .annotation_check import check_things, few
from .coco_file import InstanceFile, PanopticFile
from .panoptic_png import VOID
from .reading import ReadableDataset
from .scenes import CLASSES, NUM_STUFF, PALETTE


class CocoFormat(ReadableDataset):
    """Mixin for MM datasets in COCO's format: annotations are checked while parsed.

    MMDet leaves out what has no area or a box less than a pixel wide or high: some
    tools write a box as largest minus least coordinate, which is 0 for a lamp post.
    What counts here is the mask, see :class:`InstanceFile`.
    """

    def load_data_list(self) -> list[dict]:
        """List the images.

        Raises:
            UserError: If there are none, or nothing to learn from. If `data_prefix`
                does not name the folder of the photos.
        """
        if 'img' not in self.data_prefix:
            raise UserError(
                f'{type(self).__name__} has data_prefix={dict(self.data_prefix)}: set '
                'data_prefix.img, the folder of the photos'
            )
        images = super().load_data_list()
        if self.test_mode or not all(all(self._entries(image)) for image in images):
            return images
        is_bare = not any(map(self._entries, images))
        classes = f'of the {len(self.metainfo["classes"])} classes'
        raise UserError(
            f'{self.ann_file} has {"no annotations" if is_bare else "only crowds"} '
            f'{classes}, so there is nothing to train with (crowds, and what has '
            'ignore=1, are not learnt): give ann_file another file'
        )

    @staticmethod
    def _entries(image: dict) -> list[bool]:
        """Say of each annotation of a parsed image whether it is ignored."""
        return [bool(entry['ignore_flag']) for entry in image['instances']]

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image.

        Raises:
            UserError: If a category is another one than the class in its place.
        """
        image, annotations = raw_data_info['raw_img_info'], []
        for annotation in raw_data_info['raw_ann_info']:
            self._check(annotation, image)
            annotations.append(self._with_box(annotation))
        return super().parse_data_info(dict(raw_data_info, raw_ann_info=annotations))

    def _with_box(self, annotation: dict) -> dict:
        """Return an annotation with a box that MMDet does not leave out."""
        return annotation

    def _check(self, annotation: dict, image: dict) -> None:
        number = annotation['category_id']
        category, label = self.coco.cats[number], self.cat2label.get(number)
        where = f'annotation {annotation["id"]} of {image["file_name"]}'
        if label is None:
            return  # not among the classes that were asked for
        wanted = self._metainfo['classes'][label]  # `metainfo` is a deep copy
        if category['name'] != wanted:
            self._refuse_namesakes()
            raise UserError(
                f'{self.ann_file}: {where} is a {category["name"]!r}, but its place '
                f'in the file is that of class {wanted!r}: list the categories of '
                'the file in the order of metainfo.classes, none left out'
            )

    def _refuse_namesakes(self) -> None:
        """Raise a UserError if two categories have the name of one class."""
        classes = self._metainfo['classes']
        names = [category['name'] for category in self.coco.cats.values()]
        twice = [name for name in classes if names.count(name) > 1]
        if twice:
            raise UserError(
                f'{self.ann_file}: {names.count(twice[0])} categories have the name '
                f'{twice[0]!r}: give each its own'
            )


class PanopticFormat(CocoFormat):
    """Checks for panoptic segments, each of which needs a class.

    The annotation names the panoptic map; MMDet guesses its name from that of the
    image. Images without an annotation have no map.
    """

    def load_data_list(self) -> list[dict]:
        """List the images.

        Raises:
            UserError: If there are none, or too many classes for a label map.
        """
        count = len(self.metainfo['classes'])
        if count > VOID:
            raise UserError(
                f'{type(self).__name__} has {count} classes; label maps of a byte hold '
                f'{VOID} at most, as {VOID} is void: merge or drop classes'
            )
        return super().load_data_list()

    def COCOAPI(self, path: str) -> PanopticFile:
        """Read the file and compare it with `metainfo`; the name is MMDet's."""
        file = PanopticFile(path)
        categories = file.dataset['categories']
        check_things(self.ann_file, categories, self._metainfo)
        return file

    @staticmethod
    def _entries(image: dict) -> list[bool]:
        return [segment['is_crowd'] for segment in image['segments_info']]

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image; segments keep `area` and `is_crowd`, which MMDet drops."""
        # Other images may have segments of the same number.
        image_id = raw_data_info['raw_img_info']['img_id']
        known = {
            annotation['id']: annotation
            for annotation in raw_data_info['raw_ann_info']
            if annotation['image_id'] == image_id
        }
        info = super().parse_data_info(
            dict(raw_data_info, raw_ann_info=list(known.values()))
        )
        for segment in info['segments_info']:
            annotation = known[segment['id']]
            segment['area'] = annotation['area']
            segment['is_crowd'] = bool(annotation['iscrowd'])
        name = self.coco.map_names.get(image_id)
        folder = self.data_prefix.get('seg')
        if info['segments_info'] and not folder:
            raise UserError(
                f'{self.ann_file} lists segments, but no folder holds their maps: set '
                'data_prefix.seg'
            )
        info['seg_map_path'] = osp.join(folder, name) if folder and name else None
        return info

    def _with_box(self, annotation: dict) -> dict:
        """The loader takes the box from the PNG anyway."""
        x, y, width, height = annotation['bbox']
        box = [x, y, max(width, 1), max(height, 1)]
        return dict(annotation, bbox=box, area=max(annotation['area'], 1))

    def _check(self, annotation: dict, image: dict) -> None:
        super()._check(annotation, image)
        if annotation['category_id'] not in self.cat2label:
            name = self.coco.cats[annotation['category_id']]['name']
            raise UserError(
                f'{self.ann_file}: segment {annotation["id"]} of {image["file_name"]} '
                f'is a {name!r}, which is not among the {len(self.cat2label)} classes '
                f'of {type(self).__name__}, {few(self.metainfo["classes"])}: add it '
                'to metainfo.classes, or remove the segment and make its pixels void'
            )


class InstanceFormat(CocoFormat):
    """Checks for instances, each of which needs a mask."""

    COCOAPI = InstanceFile

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image.

        Raises:
            UserError: If the file lacks a class, which MMDet drops silently.
        """
        classes = self._metainfo['classes']
        if len(self.cat_ids) < len(classes):
            names = [category['name'] for category in self.coco.cats.values()]
            missing = [name for name in classes if name not in names]
            raise UserError(
                f'{self.ann_file} has no category {few(missing)}; it has '
                f'{few(names)}: write metainfo.classes as in the file'
            )
        return super().parse_data_info(raw_data_info)

    def _check(self, annotation: dict, image: dict) -> None:
        super()._check(annotation, image)
        if annotation['category_id'] not in self.cat2label:
            return  # left out
        if not annotation.get('segmentation'):
            where = f'annotation {annotation["id"]} of {image["file_name"]}'
            raise UserError(
                f'{self.ann_file}: {where} has no segmentation of a polygon (three '
                'points or more) or RLE, and a box is not enough: add its mask or '
                'remove the annotation'
            )


@DATASETS.register_module()
class CocoPanopticDataset(PanopticFormat, mmdet_datasets.CocoPanopticDataset):
    """COCO panoptic, 80 classes of things and 53 of stuff.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmdet.CocoPanopticDataset`.
    """


@DATASETS.register_module()
class CocoInstanceDataset(InstanceFormat, mmdet_datasets.CocoDataset):
    """COCO instances, 80 classes.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmdet.CocoDataset`.
    """


@DATASETS.register_module()
class ADE20KPanopticDataset(PanopticFormat, mmdet_datasets.ADE20KPanopticDataset):
    """ADE20K panoptic, 100 classes of things and then 50 of stuff.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmdet.ADE20KPanopticDataset`.
    """


@DATASETS.register_module()
class CityscapesPanopticDataset(PanopticFormat, mmdet_datasets.CocoPanopticDataset):
    """Cityscapes panoptic, 8 classes of things and 11 of stuff.

    What `tools/dataset_converters/cityscapes_panoptic.py` writes.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmdet.CocoPanopticDataset`.
    """

    METAINFO = dict(
        classes=cityscapes.THING_CLASSES + cityscapes.STUFF_CLASSES,
        thing_classes=cityscapes.THING_CLASSES,
        stuff_classes=cityscapes.STUFF_CLASSES,
        palette=cityscapes.PALETTE,
    )


@DATASETS.register_module()
class CityscapesInstanceDataset(InstanceFormat, mmdet_datasets.CocoDataset):
    """Cityscapes instances, 8 classes.

    What `tools/dataset_converters/cityscapes_panoptic.py` writes; groups that are not
    taken apart are crowds.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmdet.CocoDataset`.
    """

    METAINFO = dict(
        classes=cityscapes.THING_CLASSES,
        palette=cityscapes.PALETTE[: len(cityscapes.THINGS)],
    )


@DATASETS.register_module()
class ScenesPanopticDataset(CocoPanopticDataset):
    """The synthetic scenes: 5 classes of things, then sky and ground.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmdet.CocoPanopticDataset`.
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
        **kwargs: Arguments of `mmdet.CocoDataset`.
    """

    METAINFO = dict(
        classes=CLASSES[NUM_STUFF:],
        palette=[tuple(c) for c in PALETTE[NUM_STUFF:]],
    )
