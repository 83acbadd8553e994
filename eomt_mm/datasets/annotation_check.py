"""Whole annotation files in COCO's format: every field, and what refers to what.

pycocotools and MMDet take each field for granted, so that a fault ends in a traceback,
in training on nothing or in a wrong score. Fields are checked column by column: COCO's
860,000 annotations take seconds. Format: https://cocodataset.org/#format-data
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eomt_mm.errors import UserError
from eomt_mm.files import is_below

LONGEST_SIDE = 100_000  # px; masks have a byte for each pixel
NUMBER = (int, float)
MOST_SEGMENTS = 256**3  # what the three bytes of a colour tell apart


def read(path: str) -> dict:
    """Read a JSON file.

    Raises:
        UserError: If it is no JSON object, or one that readers disagree about: NaN is
            not JSON, and of two equal keys each reader takes another.
    """

    def refuse(constant: str):
        raise UserError(f'{constant} is no number of JSON; write a number')

    def unique(pairs: list[tuple]) -> dict:
        found = dict(pairs)
        if len(found) < len(pairs):
            key, times = Counter(key for key, _ in pairs).most_common(1)[0]
            raise UserError(f'an entry has {times} fields {key[:80]!r}; keep one')
        return found

    try:
        text = Path(path).read_text(encoding='utf-8-sig')
        content = json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    except RecursionError as error:
        raise UserError(
            f'{path} is no COCO annotation file: its lists are nested too deeply'
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
    """Entries of one kind in a file, checked column by column.

    Args:
        path (str): The file, for messages.
        what (str): What an entry is called.
        entries (object): Expected to be a list of objects.
    """

    def __init__(self, path: str, what: str, entries: object) -> None:
        self.path, self.what, self.entries = path, what, entries
        if not isinstance(entries, list):
            raise UserError(
                f'{path}: the {what} entries are {_short(entries)}; expected a list'
            )
        self.refuse(
            [not isinstance(entry, dict) for entry in entries],
            lambda i: f'is {_short(entries[i])}',
            'expected an object with fields',
        )

    def refuse(self, faulty, fault: Callable[[int], str], cure: str) -> None:
        """Raise a UserError if any entry is faulty: how many, the first, the cure."""
        found = [i for i, fault in enumerate(faulty) if fault]
        if len(found):
            first = found[0]
            entry = self.entries[first]
            keys = ('id', 'image_id') if isinstance(entry, dict) else ()
            number = next((entry[key] for key in keys if key in entry), None)
            name = f'no. {first}' if number is None else _short(number)
            count = f' ({len(found)} of {len(self.entries)} such)'
            raise UserError(
                f'{self.path}: {self.what} {name} {fault(first)}{count}; {cure}'
            )

    def column(self, key: str, kinds: tuple, expected: str) -> list:
        """Values of a field that every entry has, each of one of `kinds`."""
        values = [entry.get(key) for entry in self.entries]
        wrong = set(map(type, values)) - set(kinds)
        if wrong:
            self.refuse(
                [type(value) in wrong for value in values],  # noqa: E721
                lambda i: (
                    f'has no {key}'
                    if values[i] is None
                    else f'has {key} {_short(values[i])}'
                ),
                f'expected {expected}',
            )
        return values

    def identities(self, key: str, kinds: tuple) -> set:
        """Values of a field that tells entries apart."""
        values = self.column(key, kinds, 'a whole number')
        found = set(values)
        if len(found) < len(values):
            number, times = Counter(values).most_common(1)[0]
            raise UserError(
                f'{self.path}: {times} {self.what} entries have {key} '
                f'{_short(number)}: give each its own'
            )
        return found

    def references(self, key: str, kinds: tuple, known: set, target: str) -> list:
        """Values of a field, each of which is the id of a `target`."""
        values = self.column(key, kinds, f'the id of a {target}')
        if not known.issuperset(values):
            self.refuse(
                [value not in known for value in values],
                lambda i: f'has {key} {_short(values[i])}',
                f'no {target} has that id, they are {few(sorted(known, key=str))}: '
                f'add the {target} or mend the {self.what}',
            )
        return values


def check_images(path: str, images: object) -> dict:
    """Check the list of images.

    Returns:
        dict: Height and width by id.
    """
    entries = Entries(path, 'image', images)
    entries.identities('id', (int, str))
    names = entries.column('file_name', (str,), 'a name below data_prefix')
    entries.refuse(
        [not is_below(name) for name in names],
        lambda i: f'has file_name {_short(names[i])}, which leads out of its folder',
        'expected a name below data_prefix',
    )
    for key in ('height', 'width'):
        sides = entries.column(key, (int,), 'a number of pixels, not a text')
        entries.refuse(
            [not 0 < side <= LONGEST_SIDE for side in sides],
            lambda i, key=key, sides=sides: f'has {key} {sides[i]}',
            f'expected 1 to {LONGEST_SIDE} pixels',
        )
    return {image['id']: (image['height'], image['width']) for image in images}


def check_categories(path: str, categories: object, panoptic: bool) -> set:
    """Check the list of categories; returns their ids."""
    entries = Entries(path, 'category', categories)
    ids = entries.identities('id', (int,))
    entries.column('name', (str,), 'a text')
    if panoptic:
        flags = entries.column('isthing', (int, bool), '0 or 1')
        entries.refuse(
            [flag not in (0, 1) for flag in flags],
            lambda i: f'has isthing {_short(flags[i])}',
            'expected 0 (stuff) or 1 (things)',
        )
    return ids


def check_things(path: str, categories: list[dict], metainfo: dict) -> None:
    """See that file and config agree on what is a thing.

    Raises:
        UserError: If a class of `metainfo.thing_classes` is stuff in the file, or the
            reverse: it would never be trained.
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
    """Categories are in the file's list, `iscrowd` is a flag, and 0 if missing."""
    entries.references('category_id', (int,), categories, 'category')
    for entry in entries.entries:
        entry.setdefault('iscrowd', 0)
    flags = entries.column('iscrowd', (int, bool), '0 or 1')
    entries.refuse(
        [flag not in (0, 1) for flag in flags],
        lambda i: f'has iscrowd {_short(flags[i])}',
        'expected 0 or 1',
    )


def check_extents(entries: Entries) -> None:
    """Areas and boxes are numbers of pixels."""
    areas = entries.column('area', NUMBER, 'a number of pixels')
    entries.refuse(
        [not 0 <= area <= LONGEST_SIDE**2 for area in areas],
        lambda i: f'has area {_short(areas[i])}',
        'expected a number of pixels',
    )
    boxes = entries.column('bbox', (list,), 'x, y, width and height')
    entries.refuse(
        [not _is_box(box) for box in boxes],
        lambda i: f'has bbox {_short(boxes[i])}',
        'expected x, y, width and height, numbers in pixels',
    )


def is_extent(annotation: dict, size: tuple[int, int]) -> bool:
    """Whether area and box can be those of a mask in an image.

    Args:
        annotation (dict): `area` and `bbox`, if it has them.
        size (tuple[int, int]): Height and width of the image.

    Returns:
        bool: False also where a field is missing; True for what is no number at all,
        which :func:`check_extents` refuses.
    """
    area, box = annotation.get('area'), annotation.get('bbox')
    if area is None or box is None:
        return False
    try:
        x, y, width, height = box
        fits = -1 <= x <= x + width <= size[1] + 1 and -1 <= y <= y + height
        return (
            fits
            and y + height <= size[0] + 1
            and min(width, height) >= 1
            and 0 < area <= size[0] * size[1]
        )
    except (TypeError, ValueError):
        return True


def _is_box(box: list) -> bool:
    try:
        return len(box) == 4 and -1e9 < min(box) and max(box) < 1e9
    except TypeError:  # not numbers
        return False


def check_polygons(entries: Entries, sizes: dict) -> None:
    """Check outlines, which pycocotools walks pixel by pixel, wherever they lead.

    Raises:
        UserError: If an outline is no list of lists of numbers, or leads farther from
            the image than its own height and width.
    """
    chosen = [e for e in entries.entries if isinstance(e.get('segmentation'), list)]
    polygons = Entries(entries.path, entries.what, chosen)
    masks = [entry['segmentation'] for entry in chosen]
    sides = [max(sizes[entry['image_id']]) for entry in chosen]
    polygons.refuse(
        [_fault(mask, side) for mask, side in zip(masks, sides, strict=True)],
        lambda i: f'has segmentation {_short(masks[i])}, {_fault(masks[i], sides[i])}',
        'expected [[x1, y1, x2, y2, x3, y3, ...], ...], numbers in pixels',
    )


def _fault(mask: list, side: int) -> str:
    """What is wrong with the outlines of an image with this longer side, or ''."""
    pairs = len(mask) > 1
    try:
        for points in mask:
            if not isinstance(points, list):
                return 'not a list of lists'
            pairs = pairs and len(points) == 2
            if points and not (-side <= min(points) and max(points) <= 2 * side):
                return f'with points far outside of its image of {side} pixels'
    except TypeError:
        return 'with points that are no numbers'
    return 'a list of pairs' if pairs else ''


def check_run_lengths(entries: Entries) -> None:
    """Check RLE masks, which pycocotools writes to memory as they come.

    Raises:
        UserError: If the runs do not add up to the pixels of the mask.
    """
    chosen = [e for e in entries.entries if e.get('segmentation')]
    chosen = [e for e in chosen if not isinstance(e['segmentation'], list)]
    masks = Entries(entries.path, entries.what, chosen)
    masks.refuse(
        [
            not isinstance(e['segmentation'], dict)
            or not {'size', 'counts'} <= e['segmentation'].keys()
            for e in chosen
        ],
        lambda i: f'has segmentation {_short(chosen[i]["segmentation"])}',
        'expected polygons, or an RLE of size and counts',
    )
    sizes = [entry['segmentation']['size'] for entry in chosen]
    masks.refuse(
        [not _is_size(size) for size in sizes],
        lambda i: f'has an RLE of size {_short(sizes[i])}',
        'expected height and width',
    )
    totals = [_pixels(entry['segmentation']['counts']) for entry in chosen]
    masks.refuse(
        [
            total != height * width
            for total, (height, width) in zip(totals, sizes, strict=True)
        ],
        lambda i: (
            'has an RLE that is damaged'
            if totals[i] is None
            else f'has an RLE whose counts add up to {totals[i]}, not to the '
            f'{sizes[i][0] * sizes[i][1]} pixels of its size'
        ),
        'write it again',
    )


def _is_size(size: object) -> bool:
    return (
        isinstance(size, list)
        and len(size) == 2
        and {int}.issuperset(map(type, size))
        and 0 < min(size) <= max(size) <= LONGEST_SIDE
    )


def _pixels(counts: object) -> int | None:
    """Sum of the runs of an RLE; None if it is damaged.

    A compressed RLE has five bits to a character from '0' on, the lowest first, and a
    sixth that says whether more follow. Runs from the fourth on are differences to the
    last but one.
    """
    if isinstance(counts, list):
        fits = {int}.issuperset(map(type, counts)) and min(counts, default=0) >= 0
        return sum(counts) if fits else None
    if not isinstance(counts, str) or not counts.isascii() or not counts:
        return None
    digits = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(digits & 32 == 0)
    if digits.min() < 0 or digits.max() > 63 or not len(ends):
        return None
    lengths = np.diff(ends, prepend=-1)
    if ends[-1] != len(digits) - 1 or lengths.max() > 7:
        return None
    starts = ends - lengths + 1
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << 5 * place, starts)
    runs -= np.where(digits[ends] & 16, 1 << 5 * lengths, 0)  # negative
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return int(runs.sum()) if runs.min() >= 0 else None


def few(values: list) -> str:
    """The first of many values, for an error."""
    shown = ', '.join(str(value)[:80] for value in list(values)[:5])
    return shown if len(values) <= 5 else f'{shown}, ... ({len(values)} in all)'


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
