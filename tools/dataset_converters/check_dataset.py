"""Look at your own data, and get a config that trains on them.

    python tools/dataset_converters/check_dataset.py data/pets
    python tools/train.py work_dirs/check_pets/config.py

Takes a folder with photos and label maps, or with an annotation file in COCO's format
(instances or panoptic), or that file. Says what is in it, draws nine samples, and
prints a config, which is also written. docs/own_data.md tells the layouts.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from eomt_mm import cli
from eomt_mm.cli.label_maps import label_maps_of
from eomt_mm.cli.panels import contact_sheet, enlarge, paint, save
from eomt_mm.datasets.photos import Photos
from eomt_mm.files import atomic_path
from eomt_mm.own_data import (
    BACKBONES,
    Found,
    Proposal,
    Survey,
    config_text,
    describe_bands,
    find,
    propose,
    survey,
)
from eomt_mm.own_data.finding import KINDS, SEMANTIC

SAMPLES = 9
SHOWN = 8  # classes in a line


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Options of this tool."""
    parser = argparse.ArgumentParser(description='Look at a dataset, propose a config')
    parser.add_argument('data', type=Path, help='folder, or annotation file (JSON)')
    parser.add_argument(
        '--out',
        type=Path,
        help='folder for config.py and samples.png; default work_dirs/check_NAME',
    )
    parser.add_argument(
        '--backbone',
        choices=[*BACKBONES],
        default='large',
        help='ViT-L, B or S with DINOv2 weights, or a tiny one that starts from random '
        'weights and needs no download (default: large)',
    )
    parser.add_argument('--load-from', help='converted checkpoint to start from')
    parser.add_argument('--iters', type=cli.positive, help='length of the training')
    return cli.parse_args(parser, argv)


def main(argv: list[str] | None = None) -> Path:
    """Look, draw and propose.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        Path: The config.

    Raises:
        UserError: The data cannot be trained on.
    """
    args = parse_args(argv)
    if args.load_from:
        cli.check_checkpoint(args.load_from)
        # The config is used from any folder, as with the data.
        if '://' not in args.load_from:
            args.load_from = str(Path(args.load_from).resolve())
    found = find(args.data)
    name = args.data.resolve().stem
    out = args.out or Path('work_dirs') / f'check_{name}'
    config, sheet = out / 'config.py', out / 'samples.png'
    cli.check_output(config)
    numbers = survey(found)
    chosen = propose(found, numbers, args.iters)
    text = config_text(found, numbers, chosen, args.backbone, args.load_from)
    with atomic_path(config) as partial:
        partial.write_text(text, encoding='utf-8')
    cfg = cli.read_config(str(config))
    cli.fill_in(cfg)
    cli.check_data(cfg, 'train', 'val')
    picture, photos = draw(cfg)
    save(picture, sheet)
    print('\n'.join(report(found, numbers, chosen, photos)))
    print(f'  {"samples":<12}{sheet}\n\n{text}')
    print(f'Train with: python tools/train.py {config}')
    return config


def report(
    found: Found, numbers: Survey, chosen: Proposal, photos: list[str]
) -> list[str]:
    """What was found, a line for each matter; `photos` are looked at for bands."""
    lines = [f'{found.root}: {KINDS[found.task]}']

    def say(heading: str, text: str) -> None:
        lines.append(f'  {heading:<12}{text}')

    for split, place in found.splits.items():
        places = (place.images or '.', place.labels, place.ann_file)
        parts = ', '.join(filter(None, places))
        say(split, f'{numbers.images[split]} images: {parts}')
    if chosen.held_out:
        say('val', f'none found: the last {chosen.held_out} of train are held out')
    elif 'val' not in found.splits:
        say('val', 'none found: the only image is learnt and tested on')
    low, high = numbers.sizes.min(0), numbers.sizes.max(0)
    height, width = np.median(numbers.sizes, axis=0).astype(int)
    say(
        'sizes',
        f'{width} x {height} (median; {low[1]} x {low[0]} to {high[1]} x {high[0]})',
    )
    bands = describe_bands(photos)
    for text in bands:
        say('bands', text)
    if bands:
        say('', 'to take other bands see set_bands in docs/own_data.md')
    kind = 'images' if found.task == SEMANTIC else 'segments'
    pairs = list(zip(numbers.classes, numbers.occurrences.tolist(), strict=True))
    listed = ', '.join(f'{name} {count}' for name, count in pairs[:SHOWN])
    rest = f', and {len(pairs) - SHOWN} more' if len(pairs) > SHOWN else ''
    say('classes', f'{len(pairs)} (with their {kind}): {listed}{rest}')
    rare = [name for name, count in pairs if count == 0]
    if rare:
        say('', f'without a pixel: {", ".join(rare)}')
    if numbers.unused:
        say('', f'left out, without annotation: {", ".join(numbers.unused)}')
    if numbers.values:
        say('values', f'{", ".join(map(str, numbers.values))} stand for the classes')
    if numbers.reduce_zero_label:
        say('values', '0 is void, and classes count from 1 (reduce_zero_label)')
    say('void', f'{100 * numbers.void:.1f} % of the pixels')
    targets = numbers.targets
    what = 'classes' if found.task == SEMANTIC else 'segments'
    say(
        'per image',
        f'{targets.mean():.1f} {what}, at most {targets.max()}; none in '
        f'{int((targets == 0).sum())} images',
    )
    more = int((targets > chosen.queries).sum())
    say('queries', f'{chosen.queries} ({chosen.queries_why}); {more} images have more')
    say('crop', f'{chosen.crop} x {chosen.crop} ({chosen.crop_why})')
    say('iterations', f'{chosen.iters} ({chosen.iters_why})')
    return lines


def draw(cfg: Config) -> tuple[Image.Image, list[str]]:
    """Photos and labels of nine training images, as the config loads them.

    Returns:
        tuple[Image.Image, list[str]]: The sheet, and the files of the photos.
    """
    init_default_scope(cfg.default_scope)
    pipeline = cfg.val_dataloader.dataset.pipeline
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': pipeline})
    photos, read = Photos(dataset), label_maps_of(cfg)
    number = min(SAMPLES, len(dataset))
    rows, legend, paths = [], {}, []
    for index in np.linspace(0, len(dataset) - 1, number).round().astype(int):
        sample = dataset[int(index)]['data_samples']
        truth = read(sample, dataset.metainfo)['truth']
        photo = enlarge(Image.fromarray(photos[sample.img_path]))
        rows.append({'photo': photo, 'labels': paint(photo, truth)})
        legend.update(truth.legend())
        paths.append(str(sample.img_path))
    return contact_sheet(rows, legend), paths


if __name__ == '__main__':
    sys.exit(cli.run(main))
