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

import sys
from pathlib import Path

from annotating import segments
from annotating.maps import read, read_map
from annotating.whole import Task, convert_all, is_done, parse_args
from eomt_mm import cli
from eomt_mm.datasets.ade20k_panoptic import THINGS, panoptic_map
from eomt_mm.errors import UserError
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


def convert(task: Task) -> dict:
    """Write the panoptic PNG of one image and describe its segments.

    Args:
        task (Task): The image, its number in the split, and the folder to write to.

    Returns:
        dict: `image`, `panoptic` and `instances`, entries of the annotation files.
    """
    path, index, out = task
    folder, src = path.parent.name, path.parents[2]
    (split,) = (name for name in SPLITS if SPLITS[name] == folder)
    png = f'{path.stem}.png'
    width, height = read(path, lambda file: file.size)
    semantic = read_map(src / 'annotations' / folder / png, (height, width))
    instance = read_map(src / 'annotations_instance' / folder / png, (height, width, 3))
    try:
        ids, labels = panoptic_map(semantic, instance)
        found = segments.describe(ids, labels, [False] * len(labels), index)
    except UserError as error:
        raise UserError(f'{folder}/{png}: {error}') from error
    segments.save_map(ids, index, out / f'ade20k_panoptic_{split}' / png)
    instances = [
        segments.with_mask(
            segment,
            ids,
            image_id=path.stem,
            category_id=THINGS[segment['category_id']],
        )
        for segment in found
        if segment['category_id'] < len(THINGS)
    ]
    image = dict(id=path.stem, file_name=path.name, width=width, height=height)
    panoptic = dict(image_id=path.stem, file_name=png, segments_info=found)
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
    path = out / f'ade20k_panoptic_{split}.json'
    segments.write(path, images, annotations, categories)

    classes = ADE20KInstanceDataset.METAINFO['classes']
    categories = [
        dict(id=number, name=name)  # MMDetection keeps the release's numbers here
        for number, name in zip(THINGS, classes, strict=True)
    ]
    annotations = [thing for record in records for thing in record['instances']]
    path = out / f'ade20k_instance_{split}.json'
    segments.write(path, images, annotations, categories)


def main(argv: list[str] | None = None) -> None:
    """Write the annotations, unless they are there."""
    args = parse_args(
        argv,
        'Write the panoptic and instance annotations of ADE20K',
        'the folder ADEChallengeData2016',
    )
    if is_done(args.src, OUTPUTS, args.overwrite):
        print(f'{args.src} has its panoptic and instance annotations already')
        return
    if not has_mmdet():
        raise UserError(
            'MMDetection, which knows the names of the classes, is not installed; '
            'see requirements/'
        )
    src = args.src.absolute()
    images = {split: list_images(src, folder) for split, folder in SPLITS.items()}
    convert_all(src, images, OUTPUTS, convert, write_annotations, args.workers)


if __name__ == '__main__':
    sys.exit(cli.run(main))
