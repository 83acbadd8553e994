"""What a folder of images holds: label maps, COCO instances or COCO panoptic."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eomt_mm.datasets import annotation_check
from eomt_mm.datasets.annotation_check import few
from eomt_mm.errors import UserError
from eomt_mm.files import refuse_special

from .label_folders import Group, is_image, pair, split_of, split_of_path

INSTANCE, PANOPTIC, SEMANTIC = 'instance', 'panoptic', 'semantic'
KINDS = {
    INSTANCE: "instances in COCO's format",
    PANOPTIC: "panoptic segments in COCO's format",
    SEMANTIC: 'label maps',
}
_WANTED = (
    'expected photos with label maps (images/train/a.jpg and labels/train/a.png), or a '
    "JSON file in COCO's format beside its photos"
)


@dataclass(frozen=True)
class Split:
    """One split of a dataset; all paths are relative to its root.

    Args:
        images (str): Folder of the photos.
        labels (str | None): Folder of label maps or panoptic maps; instances have none.
        ann_file (str | None): Annotation file; label maps have none.
        names (tuple[str, ...]): Photos of a dataset with label maps, below `images`
            and without suffix.
    """

    images: str
    labels: str | None = None
    ann_file: str | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A dataset.

    Args:
        task (str): 'semantic', 'instance' or 'panoptic'.
        root (Path): Folder that all paths are relative to.
        splits (dict[str, Split]): 'train' and perhaps 'val'.
        suffixes (tuple[str, str]): What ends the names of photos and of label maps.
    """

    task: str
    root: Path
    splits: dict[str, Split]
    suffixes: tuple[str, str] = ('', '')


def find(path: Path) -> Found:
    """Look for one dataset.

    Args:
        path (Path): A folder, or an annotation file in COCO's format.

    Returns:
        Found: Splits by the words train and val in the names of files and folders; one
        without such a word is 'train'.

    Raises:
        UserError: There are no labels, labels of several kinds, or photos without.
    """
    if path.is_file():
        kind = _kind_of(path)
        if kind is None:
            raise UserError(
                f'{path} lists no images with annotations and categories; {_WANTED}'
            )
        # The folder of its images may lie beside that of the annotations.
        roots = [path.parent, path.parent.parent]
        other = _sibling(path)
        files = {'train': path, 'val': other} if other else {'train': path}
        if other and split_of(path.name) == 'val':
            files = {'train': other, 'val': path}
        return _from_files(kind, roots, files)
    if not path.is_dir():
        raise UserError(f'{path} does not exist: give a folder or an annotation file')
    images, texts = _list(path)
    kinds: dict[str, list[Path]] = {}
    for text in texts:
        kind = _kind_of(path / text)
        if kind:
            kinds.setdefault(kind, []).append(path / text)
    # The photos of an annotation file have no pairs.
    pairs = pair(path, images, strict=not kinds)
    if pairs:
        folders = [labels.folder for _, labels, _ in pairs.values()]
        kinds[SEMANTIC] = [path / folder for folder in folders]
    if len(kinds) > 1:
        held = ' and '.join(f'{KINDS[k]} ({few(v)})' for k, v in kinds.items())
        raise UserError(
            f'{path} holds {held}: give the annotation file, or the folder that holds '
            'nothing else'
        )
    if not kinds:
        raise UserError(f'{path} has {len(images)} images and no labels; {_WANTED}')
    ((kind, found),) = kinds.items()
    if kind == SEMANTIC:
        return _from_pairs(path, pairs)
    return _from_files(kind, [path], _by_split(path, found))


def _list(root: Path) -> tuple[list[str], list[str]]:
    """Images and JSON files below a folder, sorted, what is hidden left out."""
    images, texts = [], []
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith('.'))
        for name in sorted(names):
            if name.startswith('.'):  # such as macOS leaves beside each file
                continue
            path = os.path.join(folder, name)
            place = os.path.relpath(path, root)
            if is_image(name):
                refuse_special(path)
                images.append(place)
            elif name.lower().endswith('.json'):
                refuse_special(path)
                texts.append(place)
    return images, texts


def _kind_of(path: Path) -> str | None:
    """'instance' or 'panoptic'; None for a JSON file of something else."""
    try:
        content = annotation_check.read(str(path))
    except UserError:
        if path.stat().st_size == 0 or b'"images"' not in path.read_bytes()[:10_000]:
            return None
        raise
    annotations = content.get('annotations')
    if not {'images', 'categories'} <= content.keys() or not annotations:
        return None
    first = annotations[0] if isinstance(annotations, list) else None
    if not isinstance(first, dict):
        return None
    if 'segments_info' in first:
        return PANOPTIC
    return INSTANCE if 'category_id' in first else None


def _sibling(path: Path) -> Path | None:
    """The file of the other split, whose name differs in that word alone."""
    words = {'train': ('val', 'valid', 'validation'), 'val': ('train',)}
    own = split_of(path.name)
    for here in ('training', 'train', 'validation', 'valid', 'val'):
        if here in path.name:
            for there in words.get(own, ()):
                other = path.with_name(path.name.replace(here, there, 1))
                if other != path and other.is_file():
                    return other
    return None


def _by_split(root: Path, files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        split = split_of_path(str(file.relative_to(root)))
        if split in found:
            raise UserError(
                f'{root} has {found[split]} and {file}, both for {split}: give one of '
                'them, or write train and val into their names'
            )
        found[split] = file
    if 'train' not in found:  # the only one has another word in its name
        found = {'train': next(iter(found.values()))}
    return {split: found[split] for split in ('train', 'val') if split in found}


def _from_files(kind: str, roots: list[Path], files: dict[str, Path]) -> Found:
    """Find the folders that hold what annotation files name."""
    contents = {s: annotation_check.read(str(file)) for s, file in files.items()}
    for split, file in files.items():
        annotation_check.check_images(str(file), contents[split].get('images'))
    names = {s: [i['file_name'] for i in c['images']] for s, c in contents.items()}
    for root in roots:
        folders = _folders(root)
        splits = {}
        for split, file in files.items():
            maps = _map_names(contents[split]) if kind == PANOPTIC else []
            labels = _maps_folder(root, folders, contents[split]) if maps else None
            others = [f for f in folders if f != labels]
            images = _folder_of(root, others, names[split])
            if images is None or (maps and labels is None):
                break
            splits[split] = Split(images, labels, os.path.relpath(file, root))
        else:
            return Found(kind, root, splits)
    _refuse_missing(files[split], root, folders, names[split], maps)


def _folders(root: Path) -> list[str]:
    """The root and all folders below, relative to it, hidden ones left out."""
    found = []
    for folder, below, _ in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith('.'))
        found.append(os.path.relpath(folder, root))
    return found


def _refuse_missing(
    file: Path, root: Path, folders: list[str], photos: list[str], maps: list[str]
) -> None:
    """Raise a UserError about files that are named and in no folder."""
    taken = _folder_of(root, folders, photos)  # maps may have the names of photos
    for what, names in (('photos', photos), ('panoptic maps', maps)):
        missing = {
            folder: [n for n in names if not (root / folder / n).is_file()]
            for folder in folders
            if what == 'photos' or folder != taken
        }
        if not missing:
            continue
        best = min(missing, key=lambda folder: len(missing[folder]))
        lost = missing[best]
        if lost and len(lost) < len(names):
            raise UserError(
                f'{file} names {len(names)} {what}, of which {root / best} lacks '
                f'{len(lost)}: {few(lost)}; add them or remove the entries'
            )
    raise UserError(
        f'{file} names {few(photos)} {"and " + few(maps) + " " if maps else ""}'
        f'but no folder below {root} holds them all: put photos '
        f'{"and panoptic maps " if maps else ""}beside the file'
    )


def _map_names(content: dict) -> list[str]:
    return [str(entry.get('file_name')) for entry in content['annotations']]


def _folder_of(root: Path, folders: list[str], names: list[str]) -> str | None:
    """The folder that holds all names."""
    for folder in folders:
        if all((root / folder / name).is_file() for name in names):
            return folder
    return None


def _maps_folder(root: Path, folders: list[str], content: dict) -> str | None:
    """The folder whose PNGs have the segments that the file lists.

    Photos that are PNGs may have the same names.
    """
    # Imported here: MMDet alone has these data.
    from eomt_mm.datasets.panoptic_png import read_segment_ids

    names = _map_names(content)
    first = next((e for e in content['annotations'] if e.get('segments_info')), None)
    for folder in folders:
        if _folder_of(root, [folder], names) is None:
            continue
        if first is None:
            return folder
        try:
            ids = read_segment_ids(str(root / folder / first['file_name']))
        except UserError:
            continue
        listed = {segment['id'] for segment in first['segments_info']}
        if set(ids.ravel().tolist()) <= listed | {0}:
            return folder
    return None


def _from_pairs(root: Path, pairs: dict[str, tuple[Group, Group, tuple]]) -> Found:
    suffixes = {suffix for *_, suffix in pairs.values()}
    if len(suffixes) > 1:
        raise UserError(
            f'{root} names its files in several ways, photos and label maps ending in '
            f'{few(sorted(suffixes))}: give all splits the same endings'
        )
    (ends,) = suffixes
    splits = {
        split: Split(
            photos.folder,
            labels.folder,
            names=tuple(name.removesuffix(ends[0]) for name in photos.files),
        )
        for split, (photos, labels, _) in pairs.items()
    }
    return Found(SEMANTIC, root, splits, ends)
