"""Look at stored predictions: score, confusion of classes, best and worst images.

    python tools/test.py CONFIG CHECKPOINT --out predictions
    python tools/analysis_tools/analyze_results.py CONFIG predictions --out analysis

Takes what `tools/test.py --out` writes, label maps or MMDetection's pickle file, and
needs neither network nor checkpoint. Scores come from the config's own evaluator. The
confusion matrix counts pixels, for instances and panoptic segments too, where the last
row and column are pixels without a segment. DIR gets `confusion.png`, `confusion.csv`,
`scores.csv` with the mean IoU of each image, worst first, and the panels `worst.png`
and `best.png` in the order of their scores.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.cli.label_maps import INSTANCE_OFFSET, label_maps_of
from eomt_mm.cli.panels import LabelMap, contact_sheet, enlarge, paint, save
from eomt_mm.datasets.photos import Photos
from eomt_mm.errors import UserError
from eomt_mm.evaluation.confusion import confusion, mean_iou, shares
from eomt_mm.evaluation.stored_results import (
    read_results,
    with_label_maps,
    with_segments,
)
from eomt_mm.files import atomic_path

NOTHING = 'nothing'


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Options of this tool."""
    parser = argparse.ArgumentParser(description='Look at stored predictions')
    cli.add_common_options(parser)
    parser.add_argument('predictions', type=Path, help='what tools/test.py --out wrote')
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument(
        '--number', type=cli.positive, default=6, help='images on each of the panels'
    )
    return cli.parse_args(parser, argv)


def main(argv: list[str] | None = None) -> dict:
    """Score and draw.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict: The scores by name.

    Raises:
        UserError: Config, data and predictions do not belong together.
    """
    args = parse_args(argv)
    cfg = cli.load_config(args)
    read = label_maps_of(cfg)
    cli.check_evaluator(cfg, 'test')
    cli.check_data(cfg, 'test')
    cli.check_output(args.out / 'scores.csv')
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    evaluator = Evaluator(reading.metrics_of(cfg, 'test'))
    evaluator.dataset_meta = dataset.metainfo
    classes = dataset.metainfo['classes']
    total = np.zeros((len(classes) + 1,) * 2, np.int64)
    scores, maps = {}, {}
    for sample, path in cli.track(joined(cfg, dataset, args.predictions), len(dataset)):
        maps = read(sample, dataset.metainfo)
        if not {'truth', 'prediction'} <= maps.keys():
            raise UserError(
                f'{path} has no {"truth" if "truth" not in maps else "prediction"}: '
                'the test pipeline must load annotations, and predictions must be '
                f'{"segments" if cfg.default_scope == "mmdet" else "label maps"}'
            )
        counts = confusion(
            *(labels_of(maps[k], cfg) for k in ('truth', 'prediction')), len(classes)
        )
        total += counts
        scores[path] = mean_iou(counts)
        evaluator.process([sample])
    found = evaluator.evaluate(len(dataset))
    names = [*classes, NOTHING]
    rows = ([name, *row] for name, row in zip(names, total.tolist(), strict=True))
    write_table(args.out / 'confusion.csv', ['truth', *names], rows)
    draw_confusion(total, names, args.out / 'confusion.png')
    # Images without a labelled pixel have no score; the panels follow the table.
    scored = {path: score for path, score in scores.items() if not np.isnan(score)}
    order = sorted(scored, key=scored.get)
    table = ([path, f'{scored[path]:.4f}'] for path in order)
    write_table(args.out / 'scores.csv', ['image', 'mean_iou'], table)
    chosen = {'worst': order[: args.number], 'best': order[::-1][: args.number]}
    wanted = {path for paths in chosen.values() for path in paths}
    rows, legend = {}, {}
    photos = Photos(dataset)
    for sample, path in joined(cfg, dataset, args.predictions):
        if path in wanted:
            maps = read(sample, dataset.metainfo)
            photo = enlarge(Image.fromarray(photos[path]))
            rows[path] = {
                'photo': photo,
                'truth': paint(photo, maps['truth']),
                'prediction': paint(photo, maps['prediction']),
            }
            legend |= maps['truth'].legend() | maps['prediction'].legend()
    for name, paths in chosen.items():
        if paths:
            sheet = contact_sheet([rows[path] for path in paths], legend)
            save(sheet, args.out / f'{name}.png')
    print('\n'.join(f'{name}: {value}' for name, value in found.items()))
    print(f'scores.csv, confusion.csv, confusion.png, best.png, worst.png: {args.out}')
    return found


def joined(cfg: Config, dataset, predictions: Path):
    """Samples with truth and prediction, and the paths of their photos."""
    if cfg.default_scope == 'mmdet':
        return with_segments(dataset, read_results(predictions))
    return with_label_maps(dataset, predictions)


def labels_of(labels: LabelMap, cfg: Config) -> np.ndarray:
    """The class of each pixel, -1 for void."""
    if cfg.default_scope == 'mmseg':
        return labels.ids
    return np.where(
        np.isin(labels.ids, [*labels.names]), labels.ids % INSTANCE_OFFSET, -1
    )


def write_table(path: Path, heading: Sequence[str], rows) -> None:
    """A CSV file, whole or not at all."""
    lines = [','.join(map(str, row)) for row in (heading, *rows)]
    with atomic_path(path) as partial:
        partial.write_text('\n'.join(lines) + '\n', encoding='utf-8')


def draw_confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """A matrix of shares; numbers stand in it while there is room for them."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    used = (counts.sum(0) + counts.sum(1)) > 0
    names = [name for name, use in zip(names, used, strict=True) if use]
    table = shares(counts)[used][:, used]
    side = max(4, min(40, 0.45 * len(names) + 2))
    figure, axes = pyplot.subplots(figsize=(side, side))
    axes.imshow(table, cmap='Blues', vmin=0, vmax=100)
    axes.set(xlabel='predicted', ylabel='true', title='pixels of a true class, %')
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    if len(names) <= 30:
        for (row, column), share in np.ndenumerate(table):
            if share >= 0.5:
                ink = 'white' if share > 50 else 'black'
                axes.text(
                    column,
                    row,
                    f'{share:.0f}',
                    ha='center',
                    va='center',
                    color=ink,
                    size=8,
                )
    figure.tight_layout()
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120)
    pyplot.close(figure)


if __name__ == '__main__':
    sys.exit(cli.run(main))
