"""Annotation files in COCO's format, checked before they are indexed.

pycocotools and MMDet take every field for granted: what is missing or double ends in
a `KeyError` somewhere, or in a wrong score. Format: https://cocodataset.org/#format-data
"""

from collections import Counter

from mmdet.datasets.api_wrappers import COCO, COCOPanoptic

from eomt_mm.errors import UserError
from eomt_mm.files import is_below

IMAGE = ('id', 'file_name', 'height', 'width')
SEGMENT = ('id', 'category_id', 'area', 'bbox', 'iscrowd')

NUMBERS = ('height', 'width', 'area', 'category_id', 'iscrowd')


def _is_number(value: object) -> bool:
    # JSON has integers without end, and Python's reader takes NaN and Infinity.
    return isinstance(value, (int, float)) and abs(value) < 2**53


class _Checked:
    """Mixin: reads the file, checks it, then lets the other class index it.

    Args:
        annotation_file (str): A JSON file.

    Raises:
        UserError: If it is not JSON, or not what the class stands for.
    """

    def __init__(self, annotation_file: str) -> None:
        self.path = annotation_file
        try:
            super().__init__(annotation_file)
        except UserError:
            raise
        # What indexes it takes every kind for granted; brackets can nest too deep.
        except (
            ValueError,
            AssertionError,
            AttributeError,
            TypeError,
            KeyError,
            RecursionError,
        ) as error:
            raise UserError(
                f'{annotation_file} is not a COCO annotation file: {error}; was it '
                'cut short, or is it a file of results?'
            ) from error

    def createIndex(self) -> None:
        """Check the content, then index it; pycocotools gives the name."""
        content = self.dataset
        for key in ('images', 'categories'):
            if not isinstance(content.get(key), list):
                raise UserError(
                    f'{self.path} has no list of {key}, only {", ".join(content)}: '
                    'expected a COCO annotation file'
                )
        self._check_fields(content['images'], IMAGE, 'image')
        self._check_unique(content['images'], 'image')
        for image in content['images']:
            self._check_name(image['file_name'], f'image {image["id"]}')
        self._check_fields(content['categories'], self.category, 'category')
        self._check_unique(content['categories'], 'category')
        self._check_annotations(content.get('annotations', []))
        super().createIndex()

    def _check_fields(self, entries: list[dict], names: tuple, what: str) -> None:
        for place, entry in enumerate(entries):
            for name in names:
                if entry.get(name) is None:
                    raise UserError(
                        f'{self.path}: {what} {entry.get("id", f"no. {place}")} has '
                        f"no {name}; COCO's format needs {', '.join(names)}"
                    )
                if name in NUMBERS and not _is_number(entry[name]):
                    raise UserError(
                        f'{self.path}: {what} {entry.get("id", f"no. {place}")} has '
                        f'{name} {entry[name]!r:.80}; expected a number'
                    )

    def _check_name(self, name: object, what: str) -> None:
        """Results are written under the names in the file, and stay below a folder."""
        if not is_below(name):
            raise UserError(
                f'{self.path}: {what} has file_name {str(name)[:80]!r}, which leads '
                'out of its folder; expected a name below data_prefix'
            )

    def _check_unique(self, entries: list[dict], what: str, key: str = 'id') -> None:
        count = Counter(entry[key] for entry in entries)
        if len(count) < len(entries):
            number, times = count.most_common(1)[0]
            raise UserError(
                f'{self.path}: {times} {what} entries have {key} {number}: give each '
                'its own'
            )

    def _check_boxes(self, entries: list[dict], what: str) -> None:
        for entry in entries:
            box = entry['bbox']
            if len(box) != 4 or not all(map(_is_number, box)):
                raise UserError(
                    f'{self.path}: {what} {entry["id"]} has bbox {box!r:.80}; '
                    'expected x, y, width and height'
                )


class InstanceFile(_Checked, COCO):
    """COCO's instances: each annotation is one."""

    category = ('id', 'name')

    def _check_annotations(self, annotations: list[dict]) -> None:
        if annotations and 'segments_info' in annotations[0]:
            raise UserError(
                f'{self.path} holds panoptic segments, but instances are wanted: give '
                'ann_file a file like instances_val2017.json'
            )
        self._check_fields(annotations, ('image_id', *SEGMENT), 'annotation')
        self._check_unique(annotations, 'annotation')
        self._check_boxes(annotations, 'annotation')


class PanopticFile(_Checked, COCOPanoptic):
    """COCO's panoptic segments: each annotation lists those of one image.

    Attributes:
        map_names (dict): File name of the panoptic map of each image by id. Images
            without an annotation have none.
    """

    category = ('id', 'name', 'isthing')

    def _check_annotations(self, annotations: list[dict]) -> None:
        if annotations and 'segments_info' not in annotations[0]:
            raise UserError(
                f'{self.path} has no segments_info, so it is not panoptic: give '
                'ann_file a file like panoptic_val2017.json'
            )
        fields = ('image_id', 'file_name', 'segments_info')
        self._check_fields(annotations, fields, 'annotation')
        self._check_unique(annotations, 'annotation', 'image_id')
        for annotation in annotations:
            segments, name = annotation['segments_info'], annotation['file_name']
            self._check_name(name, f'the annotation of image {annotation["image_id"]}')
            what = f'in {name}, segment'
            self._check_fields(segments, SEGMENT, what)
            self._check_unique(segments, what)
            self._check_boxes(segments, what)
            if any(segment['id'] == 0 for segment in segments):
                raise UserError(
                    f'{self.path}: a segment of {name} has id 0, which is that of '
                    'void: number segments from 1'
                )
        self.map_names = {
            entry['image_id']: entry['file_name'] for entry in annotations
        }
