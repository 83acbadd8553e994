"""COCO's annotation files, checked as a whole and then indexed."""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter

from mmdet.datasets.api_wrappers import COCO, COCOPanoptic
from mmengine.logging import print_log

from eomt_mm.errors import UserError
from eomt_mm.files import is_below

from . import annotation_check as check
from . import mask_check
from .mask_check import MASK


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause garbage collection: millions of new objects, none of them garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Checked:
    """Mixin: reads the file, checks it, then lets the other class index it.

    Args:
        annotation_file (str): A JSON file.

    Raises:
        UserError: If it is not JSON, or not what the class stands for.
    """

    def __init__(self, annotation_file: str) -> None:
        super().__init__()
        self.path = annotation_file
        with _no_collection():
            self.dataset = check.read(annotation_file)
            self.createIndex()

    def createIndex(self) -> None:
        """Check the content, then index it; pycocotools gives the name."""
        content = self.dataset
        for key in ('images', 'categories'):
            if key not in content:
                raise UserError(
                    f'{self.path} has no {key}, only {check.few([*content])}: expected '
                    'a COCO annotation file'
                )
        sizes = check.check_images(self.path, content['images'])
        ids = check.check_categories(self.path, content['categories'], self.panoptic)
        if self.panoptic:
            # The heads take the first classes for things. Ids stay as they are.
            content['categories'].sort(key=lambda category: not category['isthing'])
        annotations = content.get('annotations', [])
        entries = check.Entries(self.path, 'annotation', annotations)
        if any(('segments_info' in a) != self.panoptic for a in annotations):
            raise UserError(
                f'{self.path} has no segments_info, so it is not panoptic: give '
                'ann_file a file like panoptic_val2017.json'
                if self.panoptic
                else f'{self.path} holds panoptic segments, but instances are wanted: '
                'give ann_file a file like instances_val2017.json'
            )
        entries.column('image_id', (int, str), 'the id of an image')
        content['annotations'] = self._of_listed_images(annotations, sizes)
        self._check_annotations(content['annotations'], sizes, ids)
        super().createIndex()
        # MMDet's names, given before there was anything to index; filters ask for them.
        self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

    def _of_listed_images(self, annotations: list[dict], images: dict) -> list[dict]:
        """Leave out annotations of other images, which subsets of a file keep."""
        if images.keys() >= {*map(itemgetter('image_id'), annotations)}:
            return annotations
        kept = [entry for entry in annotations if entry['image_id'] in images]
        other = next(e for e in annotations if e['image_id'] not in images)
        ids = f'images have ids such as {next(iter(images), None)!r}'
        fault = (
            f'{len(annotations) - len(kept)} of {len(annotations)} annotations belong '
            f'to no image, the first to image_id {other["image_id"]!r}; '
            f'{ids if images else "there are no images"}'
        )
        known = {str(image) for image in images}
        if not kept or str(other['image_id']) in known:
            raise UserError(
                f'{self.path}: {fault}: give both the same ids, of one type'
            )
        self._say(f'{fault}: left out')
        return kept

    def _say(self, message: str) -> None:
        print_log(f'{self.path}: {message}', logger='current', level=logging.WARNING)


class InstanceFile(_Checked, COCO):
    """COCO's instances: each annotation is one.

    Areas and boxes that are missing, or that cannot be those of the mask, are computed.
    """

    panoptic = False

    def _check_annotations(
        self, annotations: list[dict], sizes: dict, categories: set
    ) -> None:
        entries = check.Entries(self.path, 'annotation', annotations)
        entries.identities('id', (int,))
        check.check_labels(entries, categories)
        found = mask_check.check_masks(entries, sizes)
        wrong, empty = mask_check.settle_extents(entries, sizes, found)
        if wrong:
            self._say(
                f'{wrong} of {entries.total} areas or boxes are not those of their '
                'masks: computed anew'
            )
        if empty:
            # COCOeval would take them for missed.
            annotations[:] = [a for a in annotations if a['area'] or not a.get(MASK)]
            self._say(f'{empty} of {entries.total} masks have no pixel: left out')


class PanopticFile(_Checked, COCOPanoptic):
    """COCO's panoptic segments: each annotation lists those of one image.

    Categories are ordered anew where the file has stuff before things.

    Attributes:
        map_names (dict): File name of the panoptic map of each image by id. Images
            without an annotation have none.
    """

    panoptic = True

    def _check_annotations(
        self, annotations: list[dict], sizes: dict, categories: set
    ) -> None:
        entries = check.Entries(self.path, 'annotation', annotations)
        entries.identities('image_id', (int, str))
        names = entries.column('file_name', (str,), 'the name of a panoptic map')
        entries.refuse(
            [not is_below(name) for name in names],
            lambda i: f'has file_name {names[i][:80]!r}, which leads out of its folder',
            'expected a name below data_prefix',
        )
        lists = entries.column('segments_info', (list,), 'a list of segments')
        for name, segments in zip(names, lists, strict=True):
            check.Entries(self.path, f'in {name}, segment', segments).identities(
                'id', (int,)
            )
        segments = check.Entries(self.path, 'segment', [s for g in lists for s in g])
        segments.refuse(
            [not 0 < s['id'] < check.MOST_SEGMENTS for s in segments.entries],
            lambda i: f'has id {segments.entries[i]["id"]}',
            f'expected 1 to {check.MOST_SEGMENTS - 1}: 0 is void, and a colour has '
            'three bytes',
        )
        check.check_labels(segments, categories)
        check.check_extents(segments)
        self.map_names = {a['image_id']: a['file_name'] for a in annotations}
