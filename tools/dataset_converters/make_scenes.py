"""Write a dataset of synthetic scenes in the layouts of ADE20K and of COCO.

    python tools/dataset_converters/make_scenes.py data/scenes

writes `data/scenes/ADEChallengeData2016` with `images/`, `annotations/` (0 = void,
1..7 = the classes) and `annotations_instance/` (red = thing class from 1, green =
instance), each split into `training/` and `validation/`; and, for MMDet, the maps
`panoptic/` with `panoptic_{training,validation}.json` and
`instances_{training,validation}.json`. With `--ood` there is a folder `ood/` too:
`unknown/` with `images/` and `labels/` (0 = known, 1 = an object kind never seen in
training), and `{noise,blur,night,fog}_{1,2,3}/` with the validation images corrupted.
With `--size 256 --small 8` the scenes are large, and eight things in each are small.

The dataset is written whole or not at all. A second call does nothing; one beside the
first waits for it. Datasets of older versions of this tool are written anew.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import fcntl
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import Pool
from pathlib import Path

# The package is imported where it is used: it takes seconds, and a call that has
# nothing to do is to return at once.

MANIFEST = 'make_scenes.json'
SPLITS = ('training', 'validation')
DATASET = 'ADEChallengeData2016'
FOLDERS = ('images', 'annotations', 'annotations_instance', 'panoptic')
ANNOTATIONS = ('panoptic', 'instances')
LAYOUT = 2  # to be raised with what is written
CHUNK = 50  # scenes per step of the progress bar


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Write a dataset of synthetic scenes')
    parser.add_argument('out', type=Path, help='directory to write, e.g. data/scenes')
    parser.add_argument('--train', type=int, default=4000, help='training scenes')
    parser.add_argument('--val', type=int, default=200, help='validation scenes')
    parser.add_argument('--size', type=int, default=64, help='side in pixels')
    parser.add_argument(
        '--small', type=int, default=0, help='small things in each scene, 0 to 10'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--workers', type=int, default=1, help='processes; the result is the same'
    )
    parser.add_argument(
        '--ood', action='store_true', help='also write scenes out of distribution'
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace a dataset that was written with other arguments',
    )
    args = parser.parse_args(argv)
    for name in ('train', 'val', 'size', 'workers'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} is {getattr(args, name)}; give 1 or more')
    if not 0 <= args.small <= 10:
        parser.error(f'--small is {args.small}; give 0 to 10')
    if args.seed < 0:
        parser.error(f'--seed is {args.seed}; give 0 or more')
    return args


def write_scenes(
    task: tuple[Path, str, range, int, int, int],
) -> tuple[str, list[dict]]:
    """Draw and write some scenes: root, split, their indices, size, small things, seed.

    Seed, split and index decide what is drawn; the division into tasks does not.

    Returns:
        tuple[str, list[dict]]: The split, and the entries of each scene in the
        annotation files: `image`, `panoptic` and `instances`.
    """
    import numpy as np
    from PIL import Image

    from eomt_mm.datasets import scenes_coco
    from eomt_mm.datasets.scenes import NUM_STUFF, draw_scene

    root, split, indices, size, small, seed = task
    records = []
    for index in indices:
        rng = np.random.default_rng((seed, SPLITS.index(split), index))
        image, semantic, instance = draw_scene(rng, size, small)
        thing_class = np.where(instance > 0, semantic - NUM_STUFF + 1, 0)
        red_green = np.stack([thing_class, instance, np.zeros_like(instance)], axis=-1)
        panoptic, infos = scenes_coco.segments(index, semantic, instance)
        name = f'scene_{index:06d}.png'
        arrays = (image, semantic + 1, red_green, panoptic)
        for folder, array in zip(FOLDERS, arrays, strict=True):
            Image.fromarray(array.astype(np.uint8)).save(root / folder / split / name)
        records.append(
            dict(
                image=dict(id=index, file_name=name, height=size, width=size),
                panoptic=dict(image_id=index, file_name=name, segments_info=infos),
                instances=scenes_coco.instances(index, panoptic, infos),
            )
        )
    return split, records


def write_annotations(root: Path, split: str, records: list[dict]) -> None:
    """Write the JSON files of a split in COCO's formats.

    Args:
        root (Path): Parent of the folders.
        split (str): 'training' or 'validation'.
        records (list[dict]): What `write_scenes` returns.
    """
    from eomt_mm.datasets.scenes_coco import CATEGORIES

    images = [record['image'] for record in records]
    panoptic = [record['panoptic'] for record in records]
    instances = [thing for record in records for thing in record['instances']]
    things = [category for category in CATEGORIES if category['isthing']]
    contents = ((panoptic, CATEGORIES), (instances, things))
    for name, (annotations, categories) in zip(ANNOTATIONS, contents, strict=True):
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / f'{name}_{split}.json').write_text(json.dumps(content) + '\n')


def write_ood(root: Path, seed: int) -> None:
    """Write the validation scenes with an unknown object, and corrupted.

    Args:
        root (Path): Parent of the folders; the validation split is written.
        seed (int): Seed of the dataset.
    """
    import numpy as np
    from PIL import Image

    from eomt_mm.datasets.scenes_ood import CORRUPTIONS, STRENGTHS, add_unknown, corrupt

    unknown = root / 'ood' / 'unknown'
    kinds = [(kind, strength) for kind in CORRUPTIONS for strength in STRENGTHS]
    for folder in (unknown / 'images', unknown / 'labels'):
        folder.mkdir(parents=True)
    for kind, strength in kinds:
        (root / 'ood' / f'{kind}_{strength}').mkdir()
    for index, path in enumerate(sorted((root / 'images' / SPLITS[1]).glob('*.png'))):
        rng = np.random.default_rng((seed, len(SPLITS), index))
        scene = np.array(Image.open(path))
        for kind, strength in kinds:
            corrupted = Image.fromarray(corrupt(rng, scene, kind, strength))
            corrupted.save(root / 'ood' / f'{kind}_{strength}' / path.name)
        inside = add_unknown(rng, scene)
        Image.fromarray(scene).save(unknown / 'images' / path.name)
        labels = Image.fromarray(inside.astype(np.uint8))
        labels.save(unknown / 'labels' / f'{path.stem}_labels.png')


def write_dataset(out: Path, arguments: dict, workers: int) -> None:
    """Write all scenes beside `out`, then move them there in one step.

    Args:
        out (Path): Folder of the dataset, replaced if it exists.
        arguments (dict): `train`, `val`, `size`, `seed` and, if any, `small`; kept as
            the manifest.
        workers (int): Number of processes.
    """
    import eomt_mm.datasets.scenes_coco  # noqa: F401  once, before workers are forked
    from eomt_mm import cli

    partial = out.with_name(f'.{out.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    new, replaced = partial / 'new', partial / 'replaced'
    root = new / DATASET
    counts = (arguments['train'], arguments['val'])
    tasks = [
        (
            root,
            split,
            range(start, min(start + CHUNK, count)),
            arguments['size'],
            arguments.get('small', 0),
            arguments['seed'],
        )
        for split, count in zip(SPLITS, counts, strict=True)
        for start in range(0, count, CHUNK)
    ]
    try:
        for folder in FOLDERS:
            for split in SPLITS:
                (root / folder / split).mkdir(parents=True)
        # Leaving the pool stops its workers: none writes on after a failure. They
        # leave an interrupt to this process.
        start = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
        with Pool(workers, *start) if workers > 1 else nullcontext() as pool:
            steps = (pool.imap if pool else map)(write_scenes, tasks)
            records = {split: [] for split in SPLITS}
            for split, written in cli.track(steps, len(tasks)):
                records[split] += written
        for split in SPLITS:
            write_annotations(root, split, records[split])
        if arguments.get('ood'):
            write_ood(root, arguments['seed'])
        (new / MANIFEST).write_text(json.dumps(arguments) + '\n')
        # Moved, not emptied in place: a kill would leave half a dataset.
        if out.exists():
            out.rename(replaced)
        new.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def dataset_arguments(args: argparse.Namespace) -> dict:
    """Return the arguments that determine the dataset, kept as the manifest."""
    chosen = {key: getattr(args, key) for key in ('train', 'val', 'size', 'seed')}
    # Without them the manifest is as it was before there were these options.
    small = {'small': args.small} if args.small else {}
    ood = {'ood': True} if args.ood else {}
    return {**chosen, **small, **ood, 'layout': LAYOUT}


def read_manifest(out: Path) -> dict | None:
    """Read the arguments of `out`; None if this tool has not written it."""
    try:
        return json.loads((out / MANIFEST).read_text())
    except (OSError, ValueError):
        return None


def is_there(args: argparse.Namespace) -> bool:
    """Return, and print, whether the dataset exists already."""
    if read_manifest(args.out) != dataset_arguments(args):
        return False
    print(f'{args.out} is there already')
    return True


def check_replaceable(args: argparse.Namespace) -> None:
    """Raise a UserError if `args.out` holds anything else."""
    from eomt_mm.errors import UserError

    out, found = args.out, read_manifest(args.out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if found is None:
        raise UserError(
            f'{out} exists and was not written by make_scenes.py (no {MANIFEST} '
            'in it); choose another directory'
        )
    written = {
        out: {MANIFEST, DATASET},
        out / DATASET: {
            *FOLDERS,
            *(['ood'] if (found or {}).get('ood') else []),
            *(f'{name}_{split}.json' for name in ANNOTATIONS for split in SPLITS),
        },
    }
    for folder, names in written.items():
        foreign = sorted({path.name for path in folder.glob('*')} - names)
        if foreign:
            raise UserError(
                f'{folder} is to be replaced, but {foreign[0]} in it was not written '
                'by make_scenes.py; move it away or choose another directory'
            )
    outdated = {**found, 'layout': LAYOUT} == dataset_arguments(args)
    if not args.overwrite and not outdated:
        raise UserError(
            f'{out} holds scenes made with {found}, asked for are '
            f'{dataset_arguments(args)}; choose another directory or pass --overwrite'
        )


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Wait until no other call, nor a worker of a killed one, writes into a folder.

    Args:
        folder (Path): Folder to lock, without a lock file; created if needed. Workers
            inherit the lock and hold it until they end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'waiting for another make_scenes.py in {folder}', flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def main(argv: list[str] | None = None) -> None:
    """Write the dataset unless it exists."""
    args = parse_args(argv)
    if is_there(args):
        return
    out = args.out.resolve()
    with sole_writer(out.parent):
        if is_there(args):  # written while this call waited
            return
        check_replaceable(args)
        print(f'writing {args.train} + {args.val} scenes to {args.out}', flush=True)
        write_dataset(out, dataset_arguments(args), args.workers)


if __name__ == '__main__':
    if is_there(parse_args()):
        sys.exit()
    from eomt_mm import cli

    sys.exit(cli.run(main))
