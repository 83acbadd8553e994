"""Show what a model predicts: photo | ground truth | prediction, as pictures.

    python tools/analysis_tools/show_results.py CONFIG CHECKPOINT --out pictures

Writes one panel per image of the test dataset, in the folders of the photos, and
`panels.png` with all of them. With `--confidence` there is the confidence of a semantic
EoMT beside, dark where it is low (arXiv 2503.19108, Fig. B), and with `--second` that
of another checkpoint, of this config or of another, and the difference of both: orange
where the first is surer, blue where the second is.

    python tools/analysis_tools/show_results.py CONFIG CHECKPOINT --out pictures \
        --confidence class_score --second CONFIG CHECKPOINT
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import BaseDataElement
from PIL import Image

from eomt_mm import cli
from eomt_mm.cli.label_maps import label_maps_of
from eomt_mm.cli.panels import contact_sheet, enlarge, paint, panel, save
from eomt_mm.datasets.photos import Photos
from eomt_mm.errors import UserError
from eomt_mm.models.confidence import CONFIDENCES
from eomt_mm.result_names import result_names
from measuring.inference import ask_for_confidence, load_model

COLUMNS = ('photo', 'truth', 'prediction')
HEADINGS = {'photo': 'photo', 'truth': 'ground truth', 'prediction': 'prediction'}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Paint predictions over photos')
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help='directory for the pictures')
    parser.add_argument(
        '--number', type=int, default=12, help='images, spread over the dataset'
    )
    parser.add_argument(
        '--columns', default=','.join(COLUMNS), help='some of photo,truth,prediction'
    )
    parser.add_argument(
        '--confidence', choices=[*CONFIDENCES], help='also paint this confidence'
    )
    parser.add_argument(
        '--second',
        nargs='+',
        metavar='FILE',
        help='compare confidence with this checkpoint, its config first if another',
    )
    args = cli.parse_args(parser, argv)
    if args.second and not args.confidence:
        parser.error('--second needs --confidence')
    if args.second and len(args.second) > 2:
        parser.error(f'--second {" ".join(args.second)}: give [CONFIG] CHECKPOINT')
    return args


def main(argv: list[str] | None = None) -> list[Path]:
    """Predict and paint.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        list[Path]: The files written, the contact sheet last.

    Raises:
        UserError: If the command, the config or the data are wrong.
    """
    args = parse_args(argv)
    columns = args.columns.split(',')
    if not set(columns) <= set(COLUMNS):
        raise UserError(f'--columns {args.columns}: choose from {",".join(COLUMNS)}')
    if args.number < 1:
        raise UserError(f'--number {args.number}: at least 1')
    cfg = cli.load_config(args)
    if args.confidence:
        ask_for_confidence(cfg, args.confidence)
    label_maps = label_maps_of(cfg)
    cli.check_checkpoint(args.checkpoint, cfg=cfg)
    cli.check_data(cfg, 'test')
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    model = load_model(cfg, args.checkpoint)
    second = load_second(args, cfg) if args.second else None
    photos = Photos(dataset)
    sheet = Path(args.out) / 'panels.png'
    names = result_names(photos, reserved=[sheet.stem])

    written, rows, legend = [], [], {}
    number = min(args.number, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, number).round().astype(int):
        sample = predict(model, dataset[int(index)])
        maps = label_maps(sample, dataset.metainfo)
        maps = {name: labels for name, labels in maps.items() if name in columns}
        photo = enlarge(Image.fromarray(photos[sample.img_path]))
        pictures = {
            HEADINGS[c]: paint(photo, maps[c]) if c in maps else photo
            for c in columns
            if c == 'photo' or c in maps
        }
        if args.confidence:
            sure = confidence_of(sample)
            pictures['confidence'] = grey(sure, photo.size)
            if second:
                other = confidence_of(predict(second, dataset[int(index)]))
                pictures['second confidence'] = grey(other, photo.size)
                pictures['difference'] = two_hues(sure - other, photo.size)
        occurring = {
            k: v for labels in maps.values() for k, v in labels.legend().items()
        }
        name = names[sample.img_path]
        path = Path(args.out) / f'{name}.png'
        save(panel(name, pictures, occurring), path)
        written.append(path)
        rows.append(pictures)
        legend.update(occurring)
    save(contact_sheet(rows, legend), sheet)
    print(f'{len(written)} panels and {sheet}')
    return [*written, sheet]


def load_second(args: argparse.Namespace, cfg: Config) -> torch.nn.Module:
    """The model to compare with; it gets what the pipeline of the first makes."""
    *configs, checkpoint = args.second
    for config in configs:
        cfg = cli.read_config(config)
        ask_for_confidence(cfg, args.confidence)
    cli.check_checkpoint(checkpoint, cfg=cfg)
    return load_model(cfg, checkpoint)


def confidence_of(sample: BaseDataElement) -> np.ndarray:
    """Return the confidence map, shape (H, W)."""
    return sample.confidence.data[0].numpy()


def grey(confidence: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Paint confidence from 0 (black) to 1 (white), resized to width and height."""
    picture = Image.fromarray((255 * confidence).round().astype(np.uint8))
    return picture.convert('RGB').resize(size, Image.NEAREST)


def two_hues(difference: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Paint a difference from -1 (blue) over 0 (white) to 1 (orange)."""
    share = np.abs(difference)[..., None].clip(0, 1)
    hue = np.where(difference[..., None] > 0, (230, 97, 1), (33, 102, 172))
    painted = (255 + share * (hue - 255.0)).round().astype(np.uint8)
    return Image.fromarray(painted).resize(size, Image.NEAREST)


@torch.no_grad()
def predict(model: torch.nn.Module, item: dict) -> BaseDataElement:
    """Predict one image; return its data sample on the CPU."""
    return model.test_step(pseudo_collate([item]))[0].cpu()


if __name__ == '__main__':
    sys.exit(cli.run(main))
