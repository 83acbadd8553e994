"""Pairs of photos and label maps, found by their names."""

import os
import re
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from eomt_mm.datasets.annotation_check import few
from eomt_mm.errors import UserError

from .tiff_bands import TIFF

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
LOSSLESS = ('.png', '.bmp', '.tif', '.tiff')
ONE_CHANNEL = ('1', 'L', 'P', 'I', 'I;16')
MOST_VALUES = 64  # in one label map; a grey photo has more
LOOKED_AT = 3  # files of a folder
MIXED = 8  # first and last files of a folder in which nothing pairs
_SPLITS = {
    'train': re.compile(r'(?<![a-z])train(ing)?(?![a-z])', re.IGNORECASE),
    'val': re.compile(r'(?<![a-z])val(id|idation)?(?![a-z])', re.IGNORECASE),
    'test': re.compile(r'(?<![a-z])test(ing)?(?![a-z])', re.IGNORECASE),
}


@dataclass
class Group:
    """Images of one folder, subfolders included, that end alike.

    Args:
        folder (str): Relative to the root of the dataset.
        suffix (str): As '.png'.
        files (list[str]): Names below `folder`.
    """

    folder: str
    suffix: str
    files: list[str] = field(default_factory=list)


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image."""
    return name.lower().endswith(SUFFIXES)


def split_of(name: str) -> str | None:
    """The split that a name speaks of: 'train', 'val', 'test' or None."""
    return next((s for s, word in _SPLITS.items() if word.search(name)), None)


def split_of_path(path: str) -> str:
    """The split that a path speaks of, its last part first; else 'train'."""
    parts = reversed(Path(path).parts)
    return next((s for part in parts if (s := split_of(part))), 'train')


def pair(
    root: Path, images: list[str], strict: bool
) -> dict[str, tuple[Group, Group, tuple[str, str]]]:
    """Pair photos with label maps.

    Args:
        root (Path): The folder.
        images (list[str]): Images below it.
        strict (bool): Whether photos without labels are an error.

    Returns:
        dict[str, tuple]: Photos, label maps, and what ends the names of each, by split.

    Raises:
        UserError: Some photos of a folder have no label map, several label maps, or
            one in colours.
    """
    groups = _group(images)
    labels = [group for group in groups if _is_labels(root, group)]
    photos = [group for group in groups if group not in labels]
    fits: dict[str, list[tuple[Group, Group, tuple[str, str]]]] = {}
    for group in photos:
        split = split_of_path(group.folder)
        for other in labels if split != 'test' else ():
            if split_of_path(other.folder) == split and (ends := _ends(group, other)):
                fits.setdefault(split, []).append((group, other, ends))
    pairs = {split: _sole(root, split, found) for split, found in fits.items()}
    if not pairs and strict:
        _refuse_unpaired(root, photos, labels)
    if pairs and 'train' not in pairs:
        lost = [group for group in photos if split_of(group.folder) == 'train']
        if lost:
            raise UserError(
                f'the photos in {root / lost[0].folder}, such as {lost[0].files[0]}, '
                'pair with no label maps: give both the same names'
            )
        pairs = {'train': next(iter(pairs.values()))}
    for found in pairs.values():
        _refuse_unlabelled(root, *found)
    return {split: pairs[split] for split in ('train', 'val') if split in pairs}


def _sole(
    root: Path, split: str, found: list[tuple[Group, Group, tuple[str, str]]]
) -> tuple[Group, Group, tuple[str, str]]:
    """The one pair of a split.

    Raises:
        UserError: There are several.
    """
    if len(found) == 1:
        return found[0]
    photos, labels, _ = zip(*found, strict=True)
    for what, groups in (('photos', photos), ('label maps', labels)):
        folders = sorted({group.folder for group in groups})
        endings = sorted({group.suffix for group in groups})
        if len(folders) > 1:
            raise UserError(
                f'{root} has several folders of {what} for {split} ({few(folders)}): '
                'give a folder with one of them'
            )
        if len(endings) > 1:
            raise UserError(
                f'{what} in {root / folders[0]} end in {few(endings)}: give all the '
                'same ending, in the same case'
            )
    return found[0]


def _group(images: list[str]) -> list[Group]:
    groups: dict[tuple[str, str], Group] = {}
    for image in images:
        parts = Path(image).parts[:-1]
        # images/train/day holds photos of images/train, and train/images of its own.
        at = next((i for i, part in enumerate(parts) if split_of(part)), 0)
        depth = 2 if at == 0 and parts and split_of(parts[0]) else at + 1
        folder = os.path.join(*parts[:depth]) if parts else ''
        suffix = Path(image).suffix
        group = groups.setdefault((folder, suffix), Group(folder, suffix))
        group.files.append(os.path.relpath(image, folder or '.'))
    return list(groups.values())


def unreadable(path: Path, error: OSError) -> UserError:
    """Say that an image cannot be read, and where images of bands belong."""
    message = f'{path} is not an image that can be read: {error}'
    if path.suffix.lower() in TIFF:
        message += (
            '. If it has other bands than red, green and blue, write the config by '
            'hand, with set_bands: docs/own_data.md shows one'
        )
    return UserError(message)


def _is_labels(root: Path, group: Group) -> bool:
    if group.suffix.lower() not in LOSSLESS:
        return False
    return all(
        _is_label_map(root / group.folder / name) for name in group.files[:LOOKED_AT]
    )


def _is_label_map(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return (
                image.mode in ONE_CHANNEL
                and len(np.unique(np.asarray(image))) <= MOST_VALUES
            )
    except OSError as error:
        raise unreadable(path, error) from error


def _ends(photos: Group, labels: Group) -> tuple[str, str] | None:
    """What ends the names of photos and label maps; None if they do not belong.

    The first photos are tried in turn: one of them may lack its label map.
    """
    for photo in photos.files[:LOOKED_AT]:
        first = photo.removesuffix(photos.suffix)
        shared = {
            name: len(os.path.commonprefix([first, name.removesuffix(labels.suffix)]))
            for name in labels.files
        }
        best = max(shared, key=lambda name: (shared[name], -len(name)))
        if not shared[best]:
            continue
        ends = photo[shared[best] :], best[shared[best] :]
        stems = {name.removesuffix(ends[0]) for name in photos.files}
        found = {name.removesuffix(ends[1]) for name in labels.files}
        if len(stems & found) * 2 > len(stems):
            return ends
    return None


def _refuse_unlabelled(
    root: Path, photos: Group, labels: Group, ends: tuple[str, str]
) -> None:
    found = set(labels.files)
    lost = [n for n in photos.files if n.removesuffix(ends[0]) + ends[1] not in found]
    if lost:
        raise UserError(
            f'{len(lost)} of {len(photos.files)} photos in {root / photos.folder} have '
            f'no label map in {root / labels.folder}, the first is {lost[0]}: add the '
            f'maps (NAME{ends[1]}) or remove the photos'
        )


def _refuse_mixed(root: Path, group: Group) -> None:
    """Raise a UserError if photos and label maps lie in one folder and end alike."""
    if group.suffix.lower() not in LOSSLESS:
        return
    # Names may alternate, 1.png and 1_mask.png, or begin otherwise, img_1 and mask_1.
    ends = sorted({*group.files[:MIXED], *group.files[-MIXED:]})
    kinds = {_is_label_map(root / group.folder / name): name for name in ends}
    if len(kinds) == 2:
        raise UserError(
            f'{root / group.folder} holds photos, such as {kinds[False]}, and label '
            f'maps, such as {kinds[True]}, which all end in {group.suffix}: move the '
            'label maps to a folder of their own (images/a.png and labels/a.png)'
        )


def _refuse_unpaired(root: Path, photos: list[Group], labels: list[Group]) -> None:
    """Say what images without a pair are, where it can be told."""
    for group in (*photos, *labels):
        _refuse_mixed(root, group)
    if labels and not photos:
        raise UserError(
            f'{root} has label maps ({few(sorted({g.folder for g in labels}))}) and no '
            'photos: put the photos beside them'
        )
    if photos and all(split_of_path(g.folder) == 'test' for g in photos):
        raise UserError(
            f'all photos of {root} are in folders named test, which is left alone: '
            'call one train'
        )
    for first, second in combinations(photos, 2):
        splits = {split_of_path(group.folder) for group in (first, second)}
        if first.folder == second.folder or len(splits) > 1:
            continue
        for group, other in ((first, second), (second, first)):
            if group.suffix.lower() in LOSSLESS and _ends(other, group):
                raise UserError(
                    f'{root / group.folder} pairs with photos, but holds images in '
                    'colours or greys and no label maps: expected one channel with '
                    'the number of the class (0, 1, 2, ..., 255 for void), or an '
                    'annotation file of COCO'
                )
        if _ends(first, second):
            raise UserError(
                f'{root / first.folder} and {root / second.folder} hold images of the '
                f'same names, all {second.suffix}, which changes values: expected '
                'label maps as PNG'
            )
