"""Write Cityscapes' panoptic and instance annotations as MMDetection reads them.

    python tools/dataset_converters/cityscapes_panoptic.py data/cityscapes

reads `leftImg8bit/` and the `_gtFine_instanceIds.png` of `gtFine/`, each with `train/`
and `val/`, and writes beside them, for both, `cityscapes_panoptic_{split}/`,
`cityscapes_panoptic_{split}.json` and `cityscapes_instance_{split}.json`. The package
cityscapesscripts is not needed.

It writes everything or nothing; a second call does nothing.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
from pathlib import Path

from annotating import segments
from annotating.maps import read, read_map
from annotating.whole import Task, convert_all, is_done, parse_args
from eomt_mm import cli
from eomt_mm.datasets.cityscapes_labels import LABELS, THINGS, segments_of
from eomt_mm.errors import UserError

SPLITS = ('train', 'val')
IMAGE, MAP = '_leftImg8bit.png', '_gtFine_instanceIds.png'
OUTPUTS = tuple(
    name.format(split)
    for name in (
        'cityscapes_panoptic_{}',
        'cityscapes_panoptic_{}.json',
        'cityscapes_instance_{}.json',
    )
    for split in SPLITS
)
RELEASE = 'https://www.cityscapes-dataset.com'
# What Pillow makes of 16-bit PNGs, in its versions, and of 8-bit ones without a thing.
KINDS = 'uint16 or int32 or uint8'


def map_of(image: Path) -> Path:
    """Return the path of the map of an image, `gtFine/SPLIT/CITY/...`."""
    name = image.name.removesuffix(IMAGE) + MAP
    split, city = image.parts[-3:-1]
    return image.parents[3] / 'gtFine' / split / city / name


def list_images(src: Path, split: str) -> list[Path]:
    """List the images of a split, all of which have a map.

    Args:
        src (Path): The folder of the release.
        split (str): 'train' or 'val'.

    Raises:
        UserError: If a folder or a file is missing.
    """
    for folder, package in (('leftImg8bit', 'leftImg8bit'), ('gtFine', 'gtFine')):
        if not (src / folder / split).is_dir():
            raise UserError(
                f'{src / folder / split} is missing: give the folder in which '
                f'{package}_trainvaltest.zip of {RELEASE} is unpacked'
            )
    images = sorted((src / 'leftImg8bit' / split).glob(f'*/*{IMAGE}'))
    if not images:
        raise UserError(
            f'{src / "leftImg8bit" / split} holds no CITY/*{IMAGE}; unpack '
            f'leftImg8bit_trainvaltest.zip of {RELEASE} again'
        )
    missing = [path for path in map(map_of, images) if not path.is_file()]
    if missing:
        raise UserError(
            f'{src / "gtFine" / split} lacks the maps of {len(missing)} of '
            f'{len(images)} images, such as {missing[0].name}; unpack '
            f'gtFine_trainvaltest.zip of {RELEASE} again'
        )
    return images


def convert(task: Task) -> dict:
    """Write the panoptic PNG of one image and describe its segments.

    Args:
        task (Task): The image, its number in the split, and the folder to write to.

    Returns:
        dict: `image`, `panoptic` and `instances`, entries of the annotation files.
    """
    path, index, out = task
    split, city = path.parts[-3:-1]
    width, height = read(path, lambda file: file.size)
    source, stem = map_of(path), path.name.removesuffix(IMAGE)
    stored = read_map(source, (height, width), KINDS)
    try:
        ids, labels, crowds = segments_of(stored)
        found = segments.describe(ids, labels, crowds, index)
    except UserError as error:
        raise UserError(f'{source}: {error}') from error
    png = f'{city}/{stem}.png'
    segments.save_map(ids, index, out / f'cityscapes_panoptic_{split}' / png)
    instances = [
        segments.with_mask(segment, ids, image_id=stem)
        for segment in found
        if segment['category_id'] < len(THINGS)
    ]
    name = f'{city}/{path.name}'
    image = dict(id=stem, file_name=name, width=width, height=height)
    panoptic = dict(image_id=stem, file_name=png, segments_info=found)
    return dict(image=image, panoptic=panoptic, instances=instances)


def write_annotations(out: Path, split: str, records: list[dict]) -> None:
    """Write the two annotation files of a split.

    Args:
        out (Path): The folder to write to.
        split (str): 'train' or 'val'.
        records (list[dict]): What `convert` returned.
    """
    images = [record['image'] for record in records]
    categories = [
        dict(id=number, name=label.name, isthing=int(number < len(THINGS)))
        for number, label in enumerate(LABELS)
    ]
    annotations = [record['panoptic'] for record in records]
    path = out / f'cityscapes_panoptic_{split}.json'
    segments.write(path, images, annotations, categories)
    annotations = [thing for record in records for thing in record['instances']]
    path = out / f'cityscapes_instance_{split}.json'
    segments.write(path, images, annotations, categories[: len(THINGS)])


def main(argv: list[str] | None = None) -> None:
    """Write the annotations, unless they are there."""
    args = parse_args(
        argv,
        'Write the panoptic and instance annotations of Cityscapes',
        'the folder that holds leftImg8bit/ and gtFine/',
    )
    if is_done(args.src, OUTPUTS, args.overwrite):
        print(f'{args.src} has its panoptic and instance annotations already')
        return
    src = args.src.absolute()
    images = {split: list_images(src, split) for split in SPLITS}
    convert_all(src, images, OUTPUTS, convert, write_annotations, args.workers)


if __name__ == '__main__':
    sys.exit(cli.run(main))
