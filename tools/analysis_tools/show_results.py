"""Show what a model predicts: photo | ground truth | prediction, as pictures.

    python tools/analysis_tools/show_results.py CONFIG CHECKPOINT --out pictures

Writes one panel per image of the test dataset and `panels.png` with all of them.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import BaseDataElement
from PIL import Image

from eomt_mm import cli
from eomt_mm.cli.panels import LabelMap, contact_sheet, enlarge, paint, panel, save
from eomt_mm.errors import UserError

COLUMNS = ('photo', 'truth', 'prediction')
INSTANCE_OFFSET = 1000  # MMDet's
SURE = 0.5  # instances below this score are not shown
SHADES = (1.0, 0.8, 0.6, 0.9, 0.7)
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
    scope = cfg.get('default_scope')
    if scope not in LABEL_MAPS:
        raise UserError(f'default_scope is {scope}, expected one of {[*LABEL_MAPS]}')
    cli.check_checkpoint(args.checkpoint)
    cli.check_data(cfg, 'test')
    init_default_scope(scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    model = load_model(cfg, args.checkpoint)

    written, rows, legend = [], [], {}
    number = min(args.number, len(dataset))
    for index in np.linspace(0, len(dataset) - 1, number).round().astype(int):
        sample = predict(model, dataset[int(index)])
        maps = LABEL_MAPS[scope](sample, dataset.metainfo)
        maps = {name: labels for name, labels in maps.items() if name in columns}
        photo = enlarge(Image.open(sample.img_path).convert('RGB'))
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


def load_model(cfg: Config, checkpoint: str) -> torch.nn.Module:
    """Builds the config's model with a checkpoint's weights, ready to predict."""
    model = MODELS.build(cfg.model)
    load_checkpoint(model, checkpoint, map_location='cpu')
    return model.to(get_device()).eval()


@torch.no_grad()
def predict(model: torch.nn.Module, item: dict) -> BaseDataElement:
    """The data sample of one image, with the prediction, on the CPU."""
    return model.test_step(pseudo_collate([item]))[0].cpu()


def semantic(sample: BaseDataElement, meta: dict) -> dict[str, LabelMap]:
    """Ground truth and prediction of a `SegDataSample`."""
    names = dict(enumerate(meta['classes']))
    colours = {i: tuple(colour) for i, colour in enumerate(meta['palette'])}
    fields = {'truth': 'gt_sem_seg', 'prediction': 'pred_sem_seg'}
    return {
        column: LabelMap(sample.get(field).data[0].numpy(), names, colours)
        for column, field in fields.items()
        if field in sample
    }


def detection(sample: BaseDataElement, meta: dict) -> dict[str, LabelMap]:
    """Ground truth and prediction of a `DetDataSample`: segments or instances."""
    maps = {}
    truth = sample.gt_instances
    if 'masks' in truth:
        masks = truth.masks.to_ndarray().astype(bool)
        background = np.full(masks.shape[1:], -1)
        if 'gt_sem_seg' in sample:
            background = sample.gt_sem_seg.sem_seg[0].numpy().astype(int)
        ids = overlaid(background, truth.labels.numpy(), masks)
        maps['truth'] = segment_map(ids, meta)
    if 'pred_panoptic_seg' in sample:
        ids = sample.pred_panoptic_seg.sem_seg[0].numpy()
        maps['prediction'] = segment_map(ids, meta)
    elif 'pred_instances' in sample:
        found = sample.pred_instances
        found = found[found.scores > SURE]
        found = found[found.scores.argsort()]  # the surest on top
        background = np.full(sample.ori_shape, -1)
        ids = overlaid(background, found.labels.numpy(), found.masks.numpy())
        maps['prediction'] = segment_map(ids, meta)
    return maps


def overlaid(
    background: np.ndarray, labels: np.ndarray, masks: np.ndarray
) -> np.ndarray:
    """Paint instances over a map of classes (H, W), each with an id of its own."""
    ids = background.copy()
    for number, (label, mask) in enumerate(zip(labels, masks, strict=True), start=1):
        ids[mask] = label + number * INSTANCE_OFFSET
    return ids


def segment_map(ids: np.ndarray, meta: dict) -> LabelMap:
    """Ids class + 1000 * instance; instances of a class differ in brightness."""
    classes, names, colours = meta['classes'], {}, {}
    for i in np.unique(ids).tolist():
        number, label = divmod(i, INSTANCE_OFFSET)
        if 0 <= i and label < len(classes):
            names[i] = classes[label]
            shade = SHADES[number % len(SHADES)]
            colours[i] = tuple(int(shade * c) for c in meta['palette'][label])
    return LabelMap(ids, names, colours, outlined=True, clear=-1)


# What the data samples of each framework hold.
LABEL_MAPS: dict[str, Callable[[BaseDataElement, dict], dict[str, LabelMap]]] = {
    'mmseg': semantic,
    'mmdet': detection,
}


if __name__ == '__main__':
    sys.exit(cli.run(main))
