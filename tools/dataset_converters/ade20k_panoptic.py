"""Write ADE20K's panoptic and instance annotations as MMDetection reads them.

    python tools/dataset_converters/ade20k_panoptic.py data/ade/ADEChallengeData2016

reads `images/`, `annotations/` and `annotations_instance/` of the scene parsing
release, each split into `training/` and `validation/`, and writes beside them, for
`train` and `val`, `ade20k_panoptic_{split}/`, `ade20k_panoptic_{split}.json` and
`ade20k_instance_{split}.json`.

It writes everything or nothing; a second call does nothing.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths
from scipy.ndimage import find_objects

from eomt_mm import cli
from eomt_mm.datasets.ade20k_panoptic import THINGS, panoptic_map
from eomt_mm.errors import UserError
from eomt_mm.evaluation import id2rgb
from eomt_mm.registry import has_mmdet

SPLITS = dict(train='training', val='validation')
FOLDERS = ('images', 'annotations', 'annotations_instance')
OUTPUTS = tuple(
    name.format(split)
    for name in (
        'ade20k_panoptic_{}',
        'ade20k_panoptic_{}.json',
        'ade20k_instance_{}.json',
    )
    for split in SPLITS
)
RELEASE = 'http://sceneparsing.csail.mit.edu'
INSTANCES = f'{RELEASE}/data/ChallengeData2017/annotations_instance.tar'
# Segments are numbered through all images of a split: MMDetection looks them up by
# their number alone, and takes half an hour to load if every image has a segment 1.
# Times 20,210 training images, this still fits into the three bytes of a colour.
MOST_SEGMENTS = 512


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Write the panoptic and instance annotations of ADE20K'
    )
    parser.add_argument('src', type=Path, help='the folder ADEChallengeData2016')
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count(),
        help='processes; the result is the same (default: all cores, %(default)s)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace what was written before'
    )
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f'--workers is {args.workers}; give 1 or more')
    return args


def list_images(src: Path, split: str) -> list[Path]:
    """List the images of a split, all of which have both maps.

    Args:
        src (Path): The folder of the release.
        split (str): 'training' or 'validation'.

    Raises:
        UserError: If a folder or a file is missing.
    """
    for folder in FOLDERS:
        if (src / folder / split).is_dir():
            continue
        way_out = f'give the folder ADEChallengeData2016 of {RELEASE}'
        if folder == 'annotations_instance':
            way_out = f'a download of its own: unpack {INSTANCES} in {src}'
        raise UserError(f'{src / folder / split} is missing; {way_out}')
    images = sorted((src / 'images' / split).glob('*.jpg'))
    if not images:
        raise UserError(f'{src / "images" / split} holds no .jpg image')
    for folder in FOLDERS[1:]:
        found = {path.stem for path in (src / folder / split).glob('*.png')}
        missing = [path.stem for path in images if path.stem not in found]
        if missing:
            raise UserError(
                f'{src / folder / split} lacks the maps of {len(missing)} of '
                f'{len(images)} images, such as {missing[0]}.png; unpack the release '
                'again'
            )
    return images


def read(path: Path, look: Callable[[Image.Image], Any]) -> Any:
    """Open an image and return what `look` finds in it."""
    try:
        with Image.open(path) as file:
            return look(file)
    except (OSError, SyntaxError) as error:  # what Pillow raises on broken files
        raise UserError(f'cannot read {path}: {error}') from error


def read_map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read a map of bytes of this shape."""
    array = read(path, np.array)
    if array.shape != shape or array.dtype != np.uint8:
        raise UserError(
            f'{path} is of shape {array.shape} and type {array.dtype}; expected '
            f'{shape} and uint8, as its image is {shape[1]} x {shape[0]} pixels'
        )
    return array


def convert(task: tuple[Path, int, Path]) -> dict:
    """Write the panoptic PNG of one image and describe its segments.

    Args:
        task (tuple[Path, int, Path]): The image, its number in the split, and the
            folder to write to.

    Returns:
        dict: `image`, `panoptic` and `instances`, entries of the annotation files.
    """
    path, index, out = task
    split, src = path.parent.name, path.parents[2]
    png = f'{path.stem}.png'
    width, height = read(path, lambda file: file.size)
    semantic = read_map(src / 'annotations' / split / png, (height, width))
    instance = read_map(src / 'annotations_instance' / split / png, (height, width, 3))
    try:
        ids, labels = panoptic_map(semantic, instance)
    except UserError as error:
        raise UserError(f'{split}/{png}: {error}') from error
    if len(labels) >= MOST_SEGMENTS:
        raise UserError(
            f'{split}/{png}: {len(labels)} segments; expected fewer than '
            f'{MOST_SEGMENTS}'
        )
    first = index * MOST_SEGMENTS
    Image.fromarray(id2rgb(np.where(ids, ids + first, 0))).save(out / png)

    areas = np.bincount(ids.ravel(), minlength=len(labels) + 1).tolist()
    segments, instances = [], []
    for i, (label, (rows, columns)) in enumerate(
        zip(labels, find_objects(ids), strict=True), start=1
    ):
        left, top = columns.start, rows.start
        segment = dict(
            id=first + i,
            category_id=label,
            area=areas[i],
            bbox=[left, top, columns.stop - left, rows.stop - top],
            iscrowd=0,
        )
        segments.append(segment)
        if label < len(THINGS):
            mask = run_lengths.encode(np.asfortranarray(ids == i, dtype=np.uint8))
            mask['counts'] = mask['counts'].decode('ascii')
            names = dict(image_id=path.stem, category_id=THINGS[label])
            instances.append({**segment, **names, 'segmentation': mask})
    image = dict(id=path.stem, file_name=path.name, width=width, height=height)
    panoptic = dict(image_id=path.stem, file_name=png, segments_info=segments)
    return dict(image=image, panoptic=panoptic, instances=instances)


def write_annotations(out: Path, split: str, records: list[dict]) -> None:
    """Write the two annotation files of a split.

    Args:
        out (Path): The folder to write to.
        split (str): 'train' or 'val'.
        records (list[dict]): What `convert` returned.
    """
    from mmdet.datasets import ADE20KInstanceDataset, ADE20KPanopticDataset

    images = [record['image'] for record in records]
    # MMDetection's label of a category is its place in this list.
    classes = ADE20KPanopticDataset.METAINFO['classes']
    categories = [
        dict(id=label, name=name, isthing=int(label < len(THINGS)))
        for label, name in enumerate(classes)
    ]
    annotations = [record['panoptic'] for record in records]
    content = dict(images=images, annotations=annotations, categories=categories)
    (out / f'ade20k_panoptic_{split}.json').write_text(json.dumps(content) + '\n')

    classes = ADE20KInstanceDataset.METAINFO['classes']
    categories = [
        dict(id=number, name=name)  # MMDetection keeps the release's numbers here
        for number, name in zip(THINGS, classes, strict=True)
    ]
    annotations = [thing for record in records for thing in record['instances']]
    content = dict(images=images, annotations=annotations, categories=categories)
    (out / f'ade20k_instance_{split}.json').write_text(json.dumps(content) + '\n')


def write_all(src: Path, workers: int) -> None:
    """Write everything into a folder of its own, then move it to `src`."""
    images = {split: list_images(src, folder) for split, folder in SPLITS.items()}
    out = src / '.ade20k_panoptic.partial'
    shutil.rmtree(out, ignore_errors=True)  # of a run that was killed
    try:
        # They leave an interrupt to this process, which stops them.
        start = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
        with Pool(workers, *start) if workers > 1 else nullcontext() as pool:
            for split, paths in images.items():
                print(f'{len(paths)} {SPLITS[split]} images')
                folder = out / f'ade20k_panoptic_{split}'
                folder.mkdir(parents=True)
                tasks = [(path, index, folder) for index, path in enumerate(paths)]
                steps = (pool.imap if pool else map)(convert, tasks)
                records = list(cli.track(steps, len(tasks)))
                write_annotations(out, split, records)
        for name in OUTPUTS:
            remove(src / name)
            (out / name).rename(src / name)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def main(argv: list[str] | None = None) -> None:
    """Write the annotations, unless they are there."""
    args = parse_args(argv)
    src = args.src.absolute()
    there = [name for name in OUTPUTS if (src / name).exists()]
    if not args.overwrite:
        if len(there) == len(OUTPUTS):
            print(f'{args.src} has its panoptic and instance annotations already')
            return
        if there:
            raise UserError(
                f'{args.src} has {there[0]}, but not all of {", ".join(OUTPUTS)}; '
                'move it away, or pass --overwrite to replace it'
            )
    if not has_mmdet():
        raise UserError(
            'MMDetection, which knows the names of the classes, is not installed; '
            'see requirements/'
        )
    write_all(src, args.workers)


if __name__ == '__main__':
    sys.exit(cli.run(main))
