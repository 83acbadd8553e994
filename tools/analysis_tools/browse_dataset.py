"""Look at what the training pipeline yields: photo | labels, after augmentation.

python tools/analysis_tools/browse_dataset.py CONFIG --not-show --output-dir OUT
"""

import argparse
import sys
from itertools import islice
from pathlib import Path

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from mmengine.structures import PixelData
from mmengine.utils import ProgressBar

from eomt_mm import cli
from eomt_mm.errors import UserError

MIN_SIDE = 256  # class names need that much room


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


def build_visualizer(cfg: Config, dataset_meta: dict):
    """Build the config's visualizer, without its backends: pictures go to files."""
    settings = dict(cfg.get('visualizer', dict(type='SegLocalVisualizer')))
    settings.update(vis_backends=None, name='browse_dataset')
    visualizer = VISUALIZERS.build(settings)
    visualizer.dataset_meta = dataset_meta
    return visualizer


def draw_panel(visualizer, item: dict) -> np.ndarray:
    """Photo and labels side by side.

    Args:
        visualizer (mmseg.SegLocalVisualizer): Draws the labels.
        item (dict): `inputs` (3, H, W) in BGR and `data_samples`.

    Returns:
        np.ndarray: The panel (H, 2W, 3) in RGB; small images are enlarged.
    """
    photo = item['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
    labels = item['data_samples'].gt_sem_seg.data
    # At test time only the photo is resized.
    photo = mmcv.imresize(photo, (labels.shape[-1], labels.shape[-2]))

    zoom = -(-MIN_SIDE // min(photo.shape[:2]))
    if zoom > 1:
        photo = photo.repeat(zoom, 0).repeat(zoom, 1)
        labels = labels.repeat_interleave(zoom, -2).repeat_interleave(zoom, -1)
    sample = item['data_samples'].new()
    sample.gt_sem_seg = PixelData(data=labels)
    visualizer.add_datasample('', photo, sample, draw_pred=False)
    return np.concatenate([photo, visualizer.get_image()], axis=1)


def main(argv: list[str] | None = None) -> None:
    """Draw the first images of a dataset."""
    args = parse_args(argv)
    cfg = cli.read_config(args.config)
    cli.override(cfg, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))

    loader = f'{args.split}_dataloader'
    if loader not in cfg:
        raise UserError(f'{args.config} has no {loader}; choose another --split')
    dataset = DATASETS.build(cfg[loader].dataset)
    visualizer = build_visualizer(cfg, dataset.metainfo)
    number = min(args.number or len(dataset), len(dataset))
    progress = ProgressBar(number)
    for index, item in enumerate(islice(dataset, number)):
        panel = draw_panel(visualizer, item)
        stem = Path(item['data_samples'].img_path).stem
        if args.output_dir is not None:
            path = args.output_dir / f'{index:04d}_{stem}.png'
            mmcv.imwrite(mmcv.rgb2bgr(panel), str(path))
        if not args.not_show:
            visualizer.show(panel, win_name=stem, wait_time=args.show_interval)
        progress.update()
    print()


if __name__ == '__main__':
    sys.exit(cli.run(main))
