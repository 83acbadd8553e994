"""Checks of a whole annotation file in COCO's format: each field and each reference.

pycocotools and MMDet trust every field, so that a fault ends in a traceback, in
training on nothing or in a wrong score. The checks go through a file column by column,
which takes seconds for COCO's 860,000 annotations; `mask_check.py` checks the masks.
Format: https://cocodataset.org/#format-data
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from copy import copy
from operator import itemgetter
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from eomt_mm.errors import UserError
from eomt_mm.files import is_below, refuse_special

from .outlines import has_truth_values, rows

LONGEST_SIDE = 100_000  # px; masks have a byte for each pixel
NUMBER = (int, float)
MOST_SEGMENTS = 256**3  # what the three bytes of a colour tell apart
BEYOND = 1e30  # larger than any area; whole numbers of JSON may exceed all floats
_MISSING = [float('nan')] * 4


def read(path: str) -> dict:
    """Read a JSON file.

    Raises:
        UserError: If it is not a JSON object, or one that readers disagree about: NaN
            is not JSON, and of two equal keys some take the first, others the last.
    """

    def refuse(constant: str):
        raise UserError(f'{constant} is not a number in JSON: write a number')

    def unique(pairs: list[tuple]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            key, times = Counter(key for key, _ in pairs).most_common(1)[0]
            raise UserError(
                f'an entry has the field {key[:80]!r} {times} times: keep one'
            )
        return found

    if Path(path).is_dir():
        raise UserError(f'ann_file {str(path)!r} is a folder: set it to a JSON file')
    refuse_special(path)
    try:
        text = Path(path).read_text(encoding='utf-8-sig')
        content = json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    except RecursionError as error:
        raise UserError(
            f'{path} is not a COCO annotation file: its lists are nested too deeply'
        ) from error
    except ValueError as error:  # UnicodeDecodeError among them
        raise UserError(
            f'{path} is not a COCO annotation file: {error}; was it cut short, or is '
            'it another kind of file?'
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f'{path} is not a COCO annotation file but a {type(content).__name__}; is '
            'it a file of results?'
        )
    return content


class Entries:
    """The entries of one kind in a file, checked column by column.

    Args:
        path (str): The file, for messages.
        what (str): What an entry is called.
        entries (object): Expected to be a list of objects.
    """

    def __init__(self, path: str, what: str, entries: object) -> None:
        self.path, self.what, self.entries = path, what, entries
        if not isinstance(entries, list):
            raise UserError(
                f'{path}: the {what} entries are {short(entries)}; expected a list'
            )
        self.total = len(entries)
        self.refuse(
            [not isinstance(entry, dict) for entry in entries],
            lambda i: f'is {short(entries[i])}',
            'expected an object with fields',
        )

    def among(self, chosen: list[dict]) -> 'Entries':
        """Return some of the entries; messages still count all."""
        some = copy(self)
        some.entries = chosen
        return some

    def refuse(
        self, faulty: Iterable[bool], fault: Callable[[int], str], cure: str
    ) -> None:
        """Raise a UserError if an entry is faulty: how many, the first, the cure."""
        found = [place for place, is_faulty in enumerate(faulty) if is_faulty]
        if found:
            count = f'{len(found)} of {self.total} such'
            raise UserError(
                f'{self.path}: {self._name(found[0])} {fault(found[0])} ({count}); '
                f'{cure}'
            )

    def _name(self, place: int) -> str:
        """Name an entry by its number, that of its image, or its place in the list."""
        entry = self.entries[place]
        for key, text in (('id', ''), ('image_id', ' of image')):
            if isinstance(entry, dict) and entry.get(key) is not None:
                return f'{self.what}{text} {short(entry[key])}'
        return f'{self.what} no. {place}'

    def column(self, key: str, kinds: tuple, expected: str) -> list:
        """Return a field that every entry has, its values being of `kinds`."""
        try:  # three times as fast as `get`
            values = [*map(itemgetter(key), self.entries)]
        except KeyError:
            values = [entry.get(key) for entry in self.entries]
        wrong = {*map(type, values)}.difference(kinds)
        if wrong:
            self.refuse(
                [type(value) in wrong for value in values],  # noqa: E721
                lambda i: (
                    f'has no {key}'
                    if values[i] is None
                    else f'has {key} {short(values[i])}'
                ),
                f'expected {expected}',
            )
        return values

    def optional(self, key: str, kinds: tuple, expected: str) -> list:
        """Return a field that may be missing or null, which gives None."""
        return self.column(key, (*kinds, type(None)), expected)

    def identities(self, key: str, kinds: tuple) -> set:
        """Return the values of a field that tells entries apart."""
        values = self.column(key, kinds, 'a whole number')
        found = set(values)
        if len(found) < len(values):
            number, times = Counter(values).most_common(1)[0]
            raise UserError(
                f'{self.path}: {times} {self.what} entries have {key} '
                f'{short(number)}: give each its own'
            )
        return found

    def references(self, key: str, kinds: tuple, known: set, target: str) -> list:
        """Return the values of a field, each of which is the id of a `target`."""
        values = self.column(key, kinds, f'the id of a {target}')
        if not known.issuperset(values):
            ids = f'they are {few(sorted(known, key=str))}' if known else 'it has none'
            self.refuse(
                [value not in known for value in values],
                lambda i: f'has {key} {short(values[i])}',
                f'no {target} has that id, {ids}: add the {target} or mend the '
                f'{self.what}',
            )
        return values


def check_images(path: str, images: object) -> dict:
    """Check the list of images.

    Two images of one file are said: each keeps its annotations, and results that are
    named after photos are one.

    Args:
        path (str): The file, for messages.
        images (object): Expected to be a list of objects.

    Returns:
        dict: Height and width by id.

    Raises:
        UserError: If a field is missing or impossible, or an id occurs twice.
    """
    entries = Entries(path, 'image', images)
    entries.identities('id', (int, str))
    names = entries.column('file_name', (str,), 'a name below data_prefix')
    entries.refuse(
        [not is_below(name) for name in names],
        lambda i: f'has file_name {short(names[i])}, which leads out of its folder',
        'expected a name below data_prefix',
    )
    if len({*names}) < len(names):
        name, times = Counter(names).most_common(1)[0]
        print_log(
            f'{path}: {times} images have file_name {short(name)}: is one file listed '
            'twice?',
            logger='current',
            level=logging.WARNING,
        )
    for key in ('height', 'width'):
        sides = entries.column(key, (int,), 'a whole number of pixels')
        entries.refuse(
            [not 0 < side <= LONGEST_SIDE for side in sides],
            lambda i, key=key, sides=sides: f'has {key} {sides[i]}',
            f'expected 1 to {LONGEST_SIDE} pixels',
        )
    return {image['id']: (image['height'], image['width']) for image in images}


def check_categories(path: str, categories: object, panoptic: bool) -> set:
    """Check the list of categories.

    Args:
        path (str): The file, for messages.
        categories (object): Expected to be a list of objects.
        panoptic (bool): Whether each says if it is a thing.

    Returns:
        set: Their ids.

    Raises:
        UserError: If a field is missing or impossible, or an id occurs twice.
    """
    entries = Entries(path, 'category', categories)
    ids = entries.identities('id', (int,))
    entries.column('name', (str,), 'a text')
    if panoptic:
        flags = entries.column('isthing', (int, bool), '0 or 1')
        entries.refuse(
            [flag not in (0, 1) for flag in flags],
            lambda i: f'has isthing {short(flags[i])}',
            'expected 0 (stuff) or 1 (things)',
        )
    return ids


def check_things(path: str, categories: list[dict], metainfo: dict) -> None:
    """Check that file and config agree on what is a thing.

    Args:
        path (str): The file, for messages.
        categories (list[dict]): Its categories, checked.
        metainfo (dict): Perhaps with `thing_classes` and `stuff_classes`.

    Raises:
        UserError: If a class of `thing_classes` is stuff in the file, or the reverse:
            it would never be trained.
    """
    opinions = {
        **dict.fromkeys(metainfo.get('stuff_classes') or (), 0),
        **dict.fromkeys(metainfo.get('thing_classes') or (), 1),
    }
    kinds = ('stuff', 'thing')
    for category in categories:
        name, flag = category['name'], int(category['isthing'])
        if opinions.get(name, flag) != flag:
            raise UserError(
                f'{path} has isthing {flag} ({kinds[flag]}) for category {name!r}, '
                f'which is among the {kinds[1 - flag]}_classes of metainfo: mend one '
                'of the two'
            )


def check_labels(entries: Entries, categories: set) -> None:
    """Check categories and flags; `iscrowd` becomes 0 where it is missing or null.

    Args:
        entries (Entries): Annotations or segments.
        categories (set): Ids.

    Raises:
        UserError: If a category is not in the file's list, or a flag is not 0 or 1.
    """
    entries.references('category_id', (int,), categories, 'category')
    for key in ('iscrowd', 'ignore'):  # MMDet trains on neither
        flags = entries.optional(key, (int, bool), '0 or 1')
        if not {0, 1, None}.issuperset(flags):
            entries.refuse(
                [flag not in (0, 1, None) for flag in flags],
                lambda i, key=key, flags=flags: f'has {key} {short(flags[i])}',
                'expected 0 or 1',
            )
        if key == 'iscrowd' and None in flags:
            for entry in entries.entries:
                entry['iscrowd'] = entry.get('iscrowd') or 0


def check_extents(entries: Entries, optional: bool = False) -> tuple:
    """Check that areas and boxes are numbers of pixels.

    Args:
        entries (Entries): Annotations or segments.
        optional (bool): Whether they may be missing, or be impossible numbers: where
            there is a mask they are computed. Defaults to False.

    Returns:
        tuple[np.ndarray, np.ndarray]: Areas (N,), and boxes (N, 4) of x, y, width and
        height; NaN where they are missing.

    Raises:
        UserError: If one is not.
    """
    column = entries.optional if optional else entries.column
    areas = column('area', NUMBER, 'a number of pixels')
    boxes = column('bbox', (list,), 'x, y, width and height')
    try:
        found = np.array(areas, float)  # None is NaN
    except OverflowError:
        found = np.array([a if a is None else min(a, BEYOND) for a in areas], float)
    if not optional:
        entries.refuse(
            ~((found >= 0) & (found <= LONGEST_SIDE**2)),
            lambda i: f'has area {short(areas[i])}',
            'expected a number of pixels',
        )
    try:
        numbers, lengths = rows([_MISSING if box is None else box for box in boxes])
        faulty = (lengths != 4).any() or (abs(numbers) >= 1e9).any()
    except (TypeError, OverflowError):  # not numbers
        faulty = True
    if faulty:
        entries.refuse(
            [not (box is None or _is_box(box)) for box in boxes],
            lambda i: f'has bbox {short(boxes[i])}',
            'expected x, y, width and height, numbers in pixels',
        )
    return found, numbers.reshape(-1, 4)


def _is_box(box: list) -> bool:
    try:
        in_range = len(box) == 4 and -1e9 < min(box) and max(box) < 1e9
        return in_range and not has_truth_values(box)
    except TypeError:  # not numbers
        return False


def few(values: Collection) -> str:
    """Name the first of many values, for a message."""
    texts = [str(value)[:80] for value in [*values][:5]]
    # A name may be empty, or end in a blank.
    shown = ', '.join(t if t and t == t.strip() else repr(t) for t in texts)
    return shown if len(values) <= 5 else f'{shown}, ... ({len(values)} in all)'


def short(value: object) -> str:
    """Return the start of a value's text, for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
