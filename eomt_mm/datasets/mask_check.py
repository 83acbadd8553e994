"""Masks of annotations, polygons and RLE: checked, and compared with areas and boxes.

pycocotools walks polygons wherever they lead and writes RLE to memory as they come, so
that a wrong number ends in an endless loop or a crash of the process.
"""

from itertools import chain
from operator import itemgetter

import numpy as np
from pycocotools import mask as coco_masks

from .annotation_check import LONGEST_SIDE, Entries, check_extents, short
from .outlines import has_truth_values, is_polygon, measured

MASK = 'segmentation'
# An edge of a box may be so many pixels, and this part of the side, from its mask's,
# and an area between half and twice the mask's: tools round and draw in many ways. In
# COCO's own files both are those of the polygons, to the last digit.
PIXELS, PART, FACTOR = 2, 0.05, 2
# pycocotools 2.0.11 on NumPy 2 cannot count the pixels of more masks in one call.
MOST_AREAS = 255


def check_masks(entries: Entries, sizes: dict) -> np.ndarray:
    """Check the masks of annotations and measure them.

    Polygons of fewer than three points, or with an x without a y, are removed where
    others remain: MMDet's training drops them, and pycocotools takes four numbers for a
    box.

    Args:
        entries (Entries): Annotations of known images.
        sizes (dict): Height and width by id of the image.

    Returns:
        np.ndarray: Shape (N, 5): left, top, right, bottom and area of each mask in
        pixels, NaN where an annotation has none.

    Raises:
        UserError: If an outline is not a list of lists of numbers, or leads farther
            from the image than its longer side. If the runs of an RLE do not add up to
            the pixels of its size.
    """
    found = np.full((len(entries.entries), 5), np.nan)
    kinds = [type(entry.get(MASK) or None) for entry in entries.entries]
    outlined = [place for place, kind in enumerate(kinds) if kind is list]
    encoded = [
        place for place, kind in enumerate(kinds) if kind not in (list, type(None))
    ]
    if outlined:
        _check_polygons(entries, sizes, outlined, found)
    if encoded:
        masks = [entries.entries[place] for place in encoded]
        found[encoded] = _check_run_lengths(entries.among(masks), sizes)
    return found


def _check_polygons(
    entries: Entries, sizes: dict, places: list[int], found: np.ndarray
) -> None:
    """Check the outlines at some places; measure them into the rows of `found`."""
    chosen = [entries.entries[place] for place in places]
    masks = [entry[MASK] for entry in chosen]
    sides = _shapes(entries.among(chosen), sizes).max(1).astype(int)
    try:
        lengths = np.array([len(points) for mask in masks for points in mask])
        if not ((lengths < 6) | (lengths % 2 == 1)).any():
            found[places] = np.concatenate([*measured(masks)])
            edges = found[places, :4]
            if (edges.min(1) >= -sides).all() and (edges.max(1) <= 2 * sides).all():
                return
    except (TypeError, OverflowError):
        pass  # other things than lists of numbers, which are told below
    entries.among(chosen).refuse(
        map(_fault, masks, sides.tolist()),
        lambda i: f'has segmentation {short(masks[i])}, {_fault(masks[i], sides[i])}',
        'expected [[x1, y1, x2, y2, x3, y3, ...], ...], numbers in pixels',
    )
    for entry in chosen:
        entry[MASK] = [points for points in entry[MASK] if is_polygon(points)]
    left = [place for place in places if entries.entries[place][MASK]]
    if left:
        masks = [entries.entries[place][MASK] for place in left]
        found[left] = np.concatenate([*measured(masks)])


def _fault(mask: list, side: int) -> str:
    """Say what is wrong with the outlines of an image of this longer side, or ''."""
    pairs = len(mask) > 1
    try:
        for points in mask:
            if not isinstance(points, list):
                return 'not a list of lists'
            if has_truth_values(points):
                return 'with points that are no numbers'
            pairs = pairs and len(points) == 2
            if points and not (-side <= min(points) and max(points) <= 2 * side):
                return f'with points far outside of its image of {side} pixels'
    except TypeError:
        return 'with points that are no numbers'
    return 'a list of pairs' if pairs else ''


def _check_run_lengths(entries: Entries, images: dict) -> np.ndarray:
    """Check RLE masks and measure them, as :func:`check_masks`."""
    masks = [entry[MASK] for entry in entries.entries]
    entries.refuse(
        [
            not isinstance(mask, dict) or not {'size', 'counts'} <= mask.keys()
            for mask in masks
        ],
        lambda i: f'has segmentation {short(masks[i])}',
        'expected polygons, or an RLE of size and counts',
    )
    sizes = [mask['size'] for mask in masks]
    entries.refuse(
        [not _is_size(size) for size in sizes],
        lambda i: f'has an RLE of size {short(sizes[i])}',
        'expected height and width',
    )
    wanted = [list(images[entry['image_id']]) for entry in entries.entries]
    entries.refuse(
        [size != image for size, image in zip(sizes, wanted, strict=True)],
        lambda i: f'has an RLE of size {sizes[i]} in an image of {wanted[i]}',
        'write the RLE for the image as it is',
    )
    totals = [_pixels(mask['counts']) for mask in masks]
    entries.refuse(
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
    runs = [run_lengths(entry, entry[MASK]['size']) for entry in entries.entries]
    return _exact(runs)


def settle_extents(entries: Entries, sizes: dict, found: np.ndarray) -> tuple[int, int]:
    """Give annotations area and box of their mask where their own cannot be right.

    They cannot where they are missing, impossible in the image, or far from those of
    the mask.

    Args:
        entries (Entries): Annotations of known images, changed in place.
        sizes (dict): Height and width by id of the image.
        found (np.ndarray): Of :func:`check_masks`.

    Returns:
        tuple[int, int]: The number of wrong ones, and of masks without a pixel.

    Raises:
        UserError: If an area or a box is not a number, or impossible where there is no
            mask to tell.
    """
    areas, boxes = check_extents(entries, optional=True)
    shapes = _shapes(entries, sizes)
    is_bare = np.isnan(found[:, 4])
    check_extents(entries.among([entries.entries[i] for i in np.flatnonzero(is_bare)]))
    impossible = ~_is_possible(areas, boxes, shapes)
    far = _is_far(areas, boxes, found, shapes) | (found[:, 4] <= 0)
    doubtful = np.flatnonzero(~is_bare & (impossible | far))
    if not len(doubtful):
        return 0, 0
    suspects = [entries.entries[place] for place in doubtful]
    exact = _exact([run_lengths(a, sizes[a['image_id']]) for a in suspects])
    # The mask may be as far from its polygons: they overlap, or end at the border.
    still = _is_far(areas[doubtful], boxes[doubtful], exact, shapes[doubtful])
    wrong = still | impossible[doubtful]
    given = ~np.isnan(areas[doubtful] + boxes[doubtful].sum(1))
    for place in np.flatnonzero(wrong).tolist():
        left, top, right, bottom, area = exact[place].tolist()
        box = [left, top, right - left, bottom - top]
        suspects[place].update(area=area, bbox=box)
    is_empty = exact[:, 4] == 0
    return int((wrong & given & ~is_empty).sum()), int(is_empty.sum())


def _shapes(entries: Entries, sizes: dict) -> np.ndarray:
    """Return height and width of the image of each annotation, shape (N, 2)."""
    images = map(itemgetter('image_id'), entries.entries)
    flat = chain.from_iterable(map(sizes.__getitem__, images))
    return np.fromiter(flat, float).reshape(-1, 2)


def _is_possible(
    areas: np.ndarray, boxes: np.ndarray, shapes: np.ndarray
) -> np.ndarray:
    """Whether areas and boxes lie in images of these heights and widths; shape (N,)."""
    x, y, width, height = boxes.T
    return (
        (np.minimum(x, y) >= -1)
        & (x + width <= shapes[:, 1] + 1)
        & (y + height <= shapes[:, 0] + 1)
        & (np.minimum(width, height) >= 1)
        & (areas > 0)
        & (areas <= shapes.prod(1))
    )


def _is_far(
    areas: np.ndarray, boxes: np.ndarray, found: np.ndarray, shapes: np.ndarray
) -> np.ndarray:
    """Whether areas and boxes are far from those of the masks; shape (N,)."""
    limits = np.tile(shapes[:, ::-1], 2)
    corner = boxes[:, :2]
    given = np.concatenate((corner, corner + boxes[:, 2:]), 1).clip(0, limits)
    real = found[:, :4].clip(0, limits)
    allowed = PIXELS + PART * np.tile(real[:, 2:] - real[:, :2], 2)
    area = found[:, 4]
    return (
        (abs(given - real) > allowed).any(1)
        | (areas > FACTOR * area + 1)
        | (areas < area / FACTOR - 1)
    )


def _exact(runs: list[dict]) -> np.ndarray:
    """Measure encoded masks pixel by pixel, as :func:`check_masks`."""
    boxes = coco_masks.toBbox(runs)
    corner = boxes[:, :2]
    parts = [runs[i : i + MOST_AREAS] for i in range(0, len(runs), MOST_AREAS)]
    areas = np.concatenate([coco_masks.area(part) for part in parts])[:, None]
    return np.concatenate((corner, corner + boxes[:, 2:], areas), 1)


def run_lengths(annotation: dict, size: tuple[int, int]) -> dict:
    """Return the mask of a checked annotation as compressed RLE.

    Args:
        annotation (dict): With `segmentation`, which is not empty.
        size (tuple[int, int]): Height and width of its image.
    """
    mask = annotation[MASK]
    if isinstance(mask, list):
        return coco_masks.merge(coco_masks.frPyObjects(mask, *size))
    if isinstance(mask['counts'], list):
        return coco_masks.frPyObjects(mask, *mask['size'])
    return mask


def _is_size(size: object) -> bool:
    return (
        isinstance(size, list)
        and len(size) == 2
        and {int}.issuperset(map(type, size))
        and 0 < min(size) <= max(size) <= LONGEST_SIDE
    )


def _pixels(counts: object) -> int | None:
    """Return the sum of the runs of an RLE; None if it is damaged.

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
