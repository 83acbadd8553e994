"""Draw the loss, score, learning rates and mask probabilities a run has logged.

python tools/analysis_tools/plot_run.py work_dirs/eomt_vitl_ade20k
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import sys
from pathlib import Path

from eomt_mm import cli
from eomt_mm.errors import UserError
from eomt_mm.visualization import Curve, plot_training
from measuring.inference import SCORES


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Draw a training')
    parser.add_argument('work_dir', type=Path, help='work_dir of the training')
    parser.add_argument('--out', type=Path, help='PNG to write (WORK_DIR/training.png)')
    return cli.parse_args(parser, argv)


def read_records(work_dir: Path) -> list[dict]:
    """Read the log of a run, as if it had never been interrupted.

    Args:
        work_dir: Folder with one sub-folder for each start of the run.

    Returns:
        Records with `step` and scalars. Where a later start repeats iterations, its
        records replace the earlier ones.
    """
    records: list[dict] = []
    # MMEngine names the folders by the time of the start.
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        started = _read_json_lines(path)
        first = next((r['step'] for r in started if 'loss' in r), None)
        if first is not None:  # a test writes scalars, too, but trains nothing
            records = [r for r in records if r['step'] < first] + started
    if not records:
        raise UserError(
            f'no */vis_data/scalars.json with a training in {work_dir}: give the '
            'work_dir of a run whose visualizer has a LocalVisBackend'
        )
    return records


def _read_json_lines(path: Path) -> list[dict]:
    records = []
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # a killed run leaves half a line
    return records


def curve(records: list[dict], key: str, factor: float = 1) -> Curve:
    """Return (steps, values) of one scalar."""
    points = [(r['step'], factor * r[key]) for r in records if key in r]
    return [step for step, _ in points], [value for _, value in points]


def main(argv: list[str] | None = None) -> None:
    """Draw the run."""
    args = parse_args(argv)
    records = read_records(args.work_dir)
    keys = set().union(*records)
    rates = {'backbone': 'lr', 'head and queries': 'base_lr'}
    masks = sorted(
        (key for key in keys if key.startswith('mask_prob_')),
        key=lambda key: int(key.rpartition('_')[2]),
    )
    score = next((key for key in SCORES if key in keys), None)
    out = args.out or args.work_dir / 'training.png'
    plot_training(
        out,
        {label: curve(records, key) for label, key in rates.items() if key in keys},
        {f'masked block {i}': curve(records, key) for i, key in enumerate(masks, 1)},
        loss=curve(records, 'loss'),
        score=score and (score, curve(records, score, SCORES[score])),
        title=str(args.work_dir.resolve().name),
    )
    print(out)


if __name__ == '__main__':
    sys.exit(cli.run(main))
