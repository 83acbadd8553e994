"""Show samples of the training pipeline: photo | labels, after augmentation.

python tools/analysis_tools/browse_dataset.py CONFIG --not-show --output-dir OUT
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import BaseDataElement
from mmengine.utils import ProgressBar
from mmengine.visualization import Visualizer
from PIL import Image

from eomt_mm import cli
from eomt_mm.cli.label_maps import Reader, label_maps_of
from eomt_mm.cli.panels import enlarge, paint, panel, save
from eomt_mm.datasets.photos import Step, as_rgb, leaves
from eomt_mm.errors import UserError


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Browse a dataset')
    cli.add_common_options(parser)
    parser.add_argument(
        '--split',
        choices=('train', 'val', 'test'),
        default='train',
        help='whose dataloader to browse (default: train)',
    )
    parser.add_argument('--number', type=int, help='how many images (default: all)')
    parser.add_argument('--output-dir', type=Path, help='save the pictures here')
    parser.add_argument('--not-show', action='store_true', help='open no window')
    parser.add_argument(
        '--show-interval', type=float, default=2, help='seconds per picture'
    )
    args = cli.parse_args(parser, argv)
    if args.not_show and args.output_dir is None:
        parser.error('--not-show without --output-dir would do nothing')
    return args


def draw_panel(
    item: dict, meta: dict, label_maps: Reader, steps: Sequence[Step]
) -> Image.Image:
    """Photo and labels side by side, with a legend.

    Args:
        item (dict): `inputs` (C, H, W) as loaded, and `data_samples`. At test time the
            photo alone is resized; the labels are resized here.
        meta (dict): The dataset's `metainfo`.
        label_maps (Reader): Reads the data sample.
        steps (Sequence[Step]): The pipeline, which knows the bands of the image.

    Raises:
        UserError: The pipeline loads no labels.
    """
    sample: BaseDataElement = item['data_samples']
    truth = label_maps(sample, meta).get('truth')
    if truth is None:
        raise UserError(
            'the pipeline yields neither a label map nor masks: see that it loads '
            'the annotations'
        )
    image = item['inputs'].numpy().transpose(1, 2, 0)
    photo = enlarge(Image.fromarray(as_rgb(image, steps)))
    pictures = {'photo': photo, 'labels': paint(photo, truth)}
    return panel(Path(sample.img_path).stem, pictures, truth.legend())


def main(argv: list[str] | None = None) -> None:
    """Draw the first images of a dataset."""
    args = parse_args(argv)
    cfg = cli.read_config(args.config)
    cli.override(cfg, args.cfg_options)
    cli.fill_in(cfg)
    label_maps = label_maps_of(cfg)
    init_default_scope(cfg.default_scope)

    loader = f'{args.split}_dataloader'
    if loader not in cfg:
        raise UserError(f'{args.config} has no {loader}; choose another --split')
    dataset = DATASETS.build(cfg[loader].dataset)
    window = None if args.not_show else Visualizer()
    steps = next(leaves(dataset)).pipeline.transforms
    number = min(args.number or len(dataset), len(dataset))
    progress = ProgressBar(number)
    for index, item in enumerate(islice(dataset, number)):
        picture = draw_panel(item, dataset.metainfo, label_maps, steps)
        stem = Path(item['data_samples'].img_path).stem
        if args.output_dir is not None:
            save(picture, args.output_dir / f'{index:04d}_{stem}.png')
        if window is not None:
            interval = args.show_interval
            window.show(np.asarray(picture), win_name=stem, wait_time=interval)
        progress.update()
    print()


if __name__ == '__main__':
    sys.exit(cli.run(main))
