"""Show what a model predicts: photo | ground truth | prediction, as pictures.

    python tools/analysis_tools/show_results.py CONFIG CHECKPOINT --out pictures

Writes one panel per image of the test dataset and `panels.png` with all of them.
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
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import BaseDataElement
from PIL import Image

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.cli.inference import load_model
from eomt_mm.cli.label_maps import label_maps_of
from eomt_mm.cli.panels import contact_sheet, enlarge, paint, panel, save
from eomt_mm.datasets.photos import read_photo
from eomt_mm.errors import UserError

COLUMNS = ('photo', 'truth', 'prediction')
HEADINGS = {'photo': 'photo', 'truth': 'ground truth', 'prediction': 'prediction'}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Options of this tool."""
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
    return cli.parse_args(parser, argv)


def main(argv: list[str] | None = None) -> list[Path]:
    """Predicts and paints.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        list[Path]: The files written, the contact sheet last.

    Raises:
        UserError: Something in the command, the config or the data is wrong.
    """
    args = parse_args(argv)
    columns = args.columns.split(',')
    if not set(columns) <= set(COLUMNS):
        raise UserError(f'--columns {args.columns}: choose from {",".join(COLUMNS)}')
    if args.number < 1:
        raise UserError(f'--number {args.number}: at least 1')
    cfg = cli.load_config(args)
    label_maps = label_maps_of(cfg)
    cli.check_checkpoint(args.checkpoint)
    cli.check_data(cfg, 'test')
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    model = load_model(cfg, args.checkpoint)
    steps = reading.loading_steps(reading.pipeline_of(cfg))

    written, rows, legend = [], [], {}
    number = min(args.number, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, number).round().astype(int):
        sample = predict(model, dataset[int(index)])
        maps = label_maps(sample, dataset.metainfo)
        maps = {name: labels for name, labels in maps.items() if name in columns}
        info = dataset.get_data_info(int(index))
        photo = enlarge(Image.fromarray(read_photo(info, steps)))
        pictures = {
            HEADINGS[c]: paint(photo, maps[c]) if c in maps else photo
            for c in columns
            if c == 'photo' or c in maps
        }
        occurring = {
            k: v for labels in maps.values() for k, v in labels.legend().items()
        }
        path = Path(args.out) / f'{Path(sample.img_path).stem}.png'
        save(panel(path.stem, pictures, occurring), path)
        written.append(path)
        rows.append(pictures)
        legend.update(occurring)
    sheet = Path(args.out) / 'panels.png'
    save(contact_sheet(rows, legend), sheet)
    print(f'{len(written)} panels and {sheet}')
    return [*written, sheet]


@torch.no_grad()
def predict(model: torch.nn.Module, item: dict) -> BaseDataElement:
    """The data sample of one image, with the prediction, on the CPU."""
    return model.test_step(pseudo_collate([item]))[0].cpu()


if __name__ == '__main__':
    sys.exit(cli.run(main))
