"""The numbers of a dataset that a config depends on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eomt_mm.cli.progress import track
from eomt_mm.datasets.annotation_check import few
from eomt_mm.datasets.semantic_loading import VOID, read_label_map
from eomt_mm.errors import UserError
from eomt_mm.palettes import distinct_colours

from .finding import PANOPTIC, SEMANTIC, Found, Split
from .label_folders import unreadable

CLASS_NAMES = 'classes.txt'


@dataclass
class Survey:
    """What was counted, over all splits.

    Args:
        images (dict[str, int]): Number of images by split.
        sizes (np.ndarray): Shape (N, 2), height and width in pixels.
        classes (tuple[str, ...]): Names, in the order of labels.
        occurrences (np.ndarray): Shape (classes,), images with it for label maps, else
            its segments.
        palette (list[tuple[int, int, int]]): RGB by class.
        void (float): Share of pixels without a class, from 0 to 1.
        targets (np.ndarray): Shape (N,), what queries have to find in an image: its
            things, and its classes of stuff.
        sides (np.ndarray): Square roots of the areas of things, in shares of the
            longer side of their image; empty for label maps.
        num_things (int): Number of classes of things, which come first.
        unused (tuple[str, ...]): Categories without annotation, not among `classes`.
        values (tuple[int, ...] | None): Stored value of each class of label maps, None
            if these are 0, 1, 2, ...
        reduce_zero_label (bool): Whether label maps have 0 for void and classes from 1.
    """

    images: dict[str, int]
    sizes: np.ndarray
    classes: tuple[str, ...]
    occurrences: np.ndarray
    palette: list[tuple[int, int, int]]
    void: float
    targets: np.ndarray
    sides: np.ndarray
    num_things: int = 0
    unused: tuple[str, ...] = ()
    values: tuple[int, ...] | None = None
    reduce_zero_label: bool = False


def survey(found: Found) -> Survey:
    """Count what is in a dataset; every annotation is read.

    Args:
        found (Found): The dataset.

    Returns:
        Survey: Its numbers.

    Raises:
        UserError: Annotations are faulty, or there is nothing to learn from.
    """
    return _label_maps(found) if found.task == SEMANTIC else _files(found)


def _files(found: Found) -> Survey:
    from eomt_mm.datasets.coco_file import InstanceFile, PanopticFile

    reader = PanopticFile if found.task == PANOPTIC else InstanceFile
    files = {
        split: reader(str(found.root / place.ann_file))
        for split, place in found.splits.items()
    }
    train, *others = files.values()
    order = [category['name'] for category in train.dataset['categories']]
    for other in others:
        names = [category['name'] for category in other.dataset['categories']]
        if names != order:
            raise UserError(
                f'{other.path} lists other categories than {train.path}, or in another '
                f'order: {few(names)} and {few(order)}; give both the same list'
            )
    counts, sizes, targets, sides, covered = dict.fromkeys(order, 0), [], [], [], 0
    for file in files.values():
        for number, image in file.imgs.items():
            size = image['height'], image['width']
            entries = file.imgToAnns.get(number, [])
            entries = [entry for entry in entries if not entry['iscrowd']]
            stuff = set()
            for entry in entries:
                category = file.cats[entry['category_id']]
                counts[category['name']] += 1
                if found.task == PANOPTIC and not category['isthing']:
                    stuff.add(category['name'])
                else:
                    sides.append(np.sqrt(entry['area']) / max(size))
            covered += min(sum(entry['area'] for entry in entries), size[0] * size[1])
            things = [
                e for e in entries if file.cats[e['category_id']]['name'] not in stuff
            ]
            sizes.append(size)
            targets.append(len(things) + len(stuff))
    classes = tuple(name for name in order if counts[name])
    if not classes:
        raise UserError(f'{train.path} has no annotations to learn from: add some')
    categories = {c['name']: c for c in train.dataset['categories']}
    colours = [categories[name].get('color') for name in classes]
    is_thing = [categories[n].get('isthing', 1) for n in classes]
    if found.task == PANOPTIC and all(is_thing):
        raise UserError(
            f'all categories of {train.path} that occur are things: give a file of '
            'instances, whose annotations have a segmentation each, or mark the '
            'categories of stuff with isthing=0'
        )
    sizes = np.array(sizes)
    return Survey(
        images={split: len(file.imgs) for split, file in files.items()},
        sizes=sizes,
        classes=classes,
        occurrences=np.array([counts[name] for name in classes]),
        palette=_palette(colours),
        void=1 - covered / int(sizes.prod(axis=1).sum()),
        targets=np.array(targets),
        sides=np.array(sides),
        num_things=int(sum(is_thing)),
        unused=tuple(name for name in order if not counts[name]),
    )


def _palette(colours: list) -> list[tuple[int, int, int]]:
    """The colours of a file if all its classes have one of their own."""
    known = {
        tuple(colour)
        for colour in colours
        if isinstance(colour, (list, tuple))
        and len(colour) == 3
        and all(isinstance(c, int) and 0 <= c <= 255 for c in colour)
    }
    if len(known) == len(colours):
        return [tuple(colour) for colour in colours]
    return distinct_colours(len(colours))


def _label_maps(found: Found) -> Survey:
    places = [
        (split, found.root / split.labels / f'{name}{found.suffixes[1]}')
        for split in found.splits.values()
        for name in split.names
    ]
    sizes, pixels, images = [], np.zeros(256, int), np.zeros(256, int)
    present = []
    for split, path in track(places, len(places)):
        try:
            labels = read_label_map(str(path))
        except OSError as error:
            raise UserError(
                f'label map {path} is not an image that can be read: {error}'
            ) from error
        if labels.ndim != 2:
            raise UserError(
                f'label map {path} has shape {labels.shape}: expected one channel'
            )
        _compare_with_photo(found, split, path, labels.shape)
        areas = np.bincount(labels.ravel(), minlength=256)
        pixels += areas
        images += areas > 0
        sizes.append(labels.shape)
        present.append(areas > 0)
    classes, values, reduces = _classes(found, np.flatnonzero(pixels).tolist())
    stored = np.array(values or range(reduces, len(classes) + reduces))
    palette = _stored_palette(places[0][1], stored) or distinct_colours(len(classes))
    sizes = np.array(sizes)
    return Survey(
        images={name: len(split.names) for name, split in found.splits.items()},
        sizes=sizes,
        classes=classes,
        occurrences=images[stored],
        palette=palette,
        void=float(1 - pixels[stored].sum() / pixels.sum()),
        targets=np.array(present)[:, stored].sum(axis=1),
        sides=np.empty(0),
        values=values,
        reduce_zero_label=reduces,
    )


def _compare_with_photo(
    found: Found, split: Split, path: Path, shape: tuple[int, int]
) -> None:
    name = path.relative_to(found.root / split.labels).as_posix()
    name = name.removesuffix(found.suffixes[1]) + found.suffixes[0]
    photo = found.root / split.images / name
    try:
        with Image.open(photo) as image:
            size = image.size[::-1]
    except OSError as error:
        raise unreadable(photo, error) from error
    if size != shape:
        raise UserError(
            f'label map {path} has shape {shape}, its photo {size}: expected one value '
            'for each pixel of the photo as stored'
        )


def _classes(
    found: Found, values: list[int]
) -> tuple[tuple[str, ...], tuple[int, ...] | None, bool]:
    """Names of classes, stored values if these have gaps, and whether 0 is void.

    255 is void, but in masks of 0 and 255 it is a class.
    """
    used = values if values == [0, VOID] else [v for v in values if v != VOID]
    if not used:
        raise UserError(
            f'all label maps of {found.root} are void ({VOID}): there is nothing to '
            'learn from'
        )
    path = found.root / CLASS_NAMES
    if path.is_file():
        try:
            # Some editors begin a text with a mark of its encoding.
            lines = path.read_text(encoding='utf-8-sig').splitlines()
        except UnicodeDecodeError as error:
            raise UserError(
                f'{path} is no text in UTF-8 ({error}): save it in that encoding'
            ) from error
        names = tuple(line.strip() for line in lines if line.strip())
        if used == [0, VOID] and len(names) == 2:
            return names, (0, VOID), False
        reduces = used[-1] == len(names)  # ADE20K's way
        if used[-1] > len(names):
            raise UserError(
                f'{path} names {len(names)} classes, but label maps have the value '
                f'{used[-1]}: expected a name a line for each of 0 to {used[-1]}'
            )
        return names, None, reduces
    names = tuple(f'class_{value}' for value in used)
    return names, None if used == [*range(len(used))] else tuple(used), False


def _stored_palette(
    path: Path, stored: np.ndarray
) -> list[tuple[int, int, int]] | None:
    """The colours that a label map carries, if they tell all classes apart."""
    with Image.open(path) as image:
        if image.mode != 'P':
            return None
        table = np.array(image.getpalette('RGB')).reshape(-1, 3)
    if stored.max() >= len(table) or len(np.unique(table[stored], axis=0)) < len(
        stored
    ):
        return None
    return [tuple(colour) for colour in table[stored].tolist()]
