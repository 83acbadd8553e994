"""Find ALGM's threshold for a trained model.

    python tools/analysis_tools/calibrate_algm.py CONFIG CHECKPOINT --out algm.json

Measures how similar the patches of each window are on training images, takes the
threshold that a given share of the windows passes, and tests some thresholds around it
on test images. With --max-loss it takes the lowest of them that costs at most so many
points. Writes `algm.json`, which

    --cfg-options model.backbone.token_merging.type=eomt_mm.ALGM \
        model.backbone.token_merging.threshold=auto \
        model.backbone.token_merging.calibration=algm.json

uses in any tool, and `algm.png`, the share of merged windows, GFLOPs and score over
the threshold.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.logging import MMLogger
from torch import Tensor

from eomt_mm import cli
from eomt_mm.errors import UserError
from eomt_mm.files import atomic_path
from eomt_mm.models.token_merging import ALGM
from eomt_mm.visualization import ACCENT, INK
from measuring.calibration import (
    Trial,
    as_json,
    attempt,
    lowest_within,
    merged_fraction,
    method_options,
    similarities,
    threshold_for,
)
from measuring.inference import Images, load_model
from measuring.output import write_json

SWEEP = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)
# Points of score that a threshold may cost before the tool speaks of it.
NOTABLE_LOSS = 1.0


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Find ALGM's threshold")
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, type=Path, help='JSON file to write')
    parser.add_argument(
        '--fraction',
        type=float,
        default=0.8,
        help='share of the windows that the threshold is to merge',
    )
    parser.add_argument(
        '--max-loss',
        type=float,
        metavar='POINTS',
        help='take the lowest threshold tried whose score is at most so many points '
        'below that without merging, instead of that of --fraction',
    )
    parser.add_argument(
        '--images', type=cli.positive, default=200, help='images for the statistics'
    )
    parser.add_argument(
        '--split',
        choices=['train', 'test'],
        default='train',
        help='where these images are from',
    )
    parser.add_argument(
        '--score-images',
        type=int,
        default=100,
        help='test images on which thresholds are tried; 0 leaves that out',
    )
    parser.add_argument(
        '--sweep',
        type=float,
        nargs='+',
        default=SWEEP,
        help='shares of the windows whose thresholds are tried',
    )
    parser.add_argument('--batch-size', type=cli.positive, default=1)
    return cli.parse_args(parser, argv)


def main(argv: list[str] | None = None) -> dict:
    """Calibrate.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict: Content of the file.

    Raises:
        UserError: Something in the command, the config or the data is wrong.
    """
    args = parse_args(argv)
    for option, shares in (('--fraction', [args.fraction]), ('--sweep', args.sweep)):
        if not all(0 <= share <= 1 for share in shares):
            raise UserError(f'{option} {shares}: expected shares between 0 and 1')
    if args.out.suffix != '.json':
        raise UserError(f'--out {args.out}: expected a name that ends in .json')
    if args.score_images < 0:
        raise UserError(f'--score-images {args.score_images}: expected 0 or more')
    if args.max_loss is not None and not args.score_images:
        raise UserError('--max-loss needs scores: leave out --score-images 0')
    cli.check_output(args.out)
    cfg = cli.load_config(args)
    cli.check_checkpoint(args.checkpoint, cfg=cfg)
    cli.check_data(cfg, args.split, *(['test'] if args.score_images else []))
    options = method_options(cfg)
    block, window = options.get('local_block', 1), options.get('window', 2)
    model = load_model(cfg, args.checkpoint)
    MMLogger.get_current_instance().setLevel('WARNING')  # no table for every threshold

    images = Images(cfg, args.images, args.split)
    found = similarities(model, images, block, window, args.batch_size)
    threshold = threshold_for(found, args.fraction)
    print(
        f'{len(found):,} windows of {len(images)} images ({args.split}), similarity '
        f'{found.mean():.4f} on average; {args.fraction:.0%} have at least {threshold}'
    )
    content = dict(
        # Unknown until the scores are: a file that nothing reads by mistake.
        threshold=threshold if args.max_loss is None else None,
        fraction=args.fraction,
        local_block=block,
        window=window,
        config=args.config,
        checkpoint=args.checkpoint,
        images=f'{len(images)} of {args.split}',
        similarity_quantiles=quantiles(found),
    )
    # At once, so that a kill loses no more than the trial it is in.
    write_json(args.out, content)
    if args.score_images:
        trials, name = try_thresholds(
            args, cfg, model, options, found, threshold, content
        )
        content['threshold'] = threshold = choose(args, trials, threshold, name)
        write_json(args.out, content)
        picture = args.out.with_suffix('.png')
        draw(picture, found, threshold, trials, name, args.split)
        print(picture)
    print(args.out)
    return content


def choose(
    args: argparse.Namespace, trials: list[Trial], threshold: float, name: str
) -> float:
    """Choose the threshold: within --max-loss, or the one given with a warning."""
    plain, *tried = trials
    if args.max_loss is not None:
        best = lowest_within(plain, tried, args.max_loss)
        if best is None:
            loss = min(plain.score - trial.score for trial in tried)
            raise UserError(
                f'--max-loss {args.max_loss}: every threshold tried costs {loss:.2f} '
                f'points of {name} or more: try smaller shares (--sweep 0 0.05 0.1), '
                f'or other options of token_merging. The trials are in {args.out}'
            )
        print(f'{best.threshold} costs {plain.score - best.score:.2f} points of {name}')
        return best.threshold
    (given,) = (trial for trial in tried if trial.threshold == threshold)
    loss = plain.score - given.score
    if loss > NOTABLE_LOSS:
        best = lowest_within(plain, tried, NOTABLE_LOSS)
        advice = 'none of those tried costs less: --sweep has smaller shares to try'
        if best is not None:
            advice = (
                f'{best.threshold} costs {plain.score - best.score:.2f}: '
                f'--max-loss {NOTABLE_LOSS:g} would take it'
            )
        print(
            f'warning: threshold {threshold} of --fraction {args.fraction} costs '
            f'{loss:.2f} points of {name}; {advice}',
            file=sys.stderr,
        )
    return threshold


def quantiles(found: Tensor) -> dict[str, float]:
    """Return the deciles of similarity."""
    places = (np.linspace(0, 1, 11) * (len(found) - 1)).round().astype(int)
    return {f'{i / 10:.1f}': round(found[p].item(), 6) for i, p in enumerate(places)}


def try_thresholds(
    args, cfg, model, options: dict, found: Tensor, threshold: float, content: dict
) -> tuple[list[Trial], str]:
    """Test without merging, then with thresholds from high to low.

    Each trial is added to `content` and written at once.
    """
    images = Images(cfg, args.score_images)
    chosen = {threshold_for(found, share) for share in args.sweep} | {threshold}
    methods = [None, *(ALGM(threshold=t, **options) for t in sorted(chosen)[::-1])]
    # GFLOPs and score are of test images, the share is of those of the statistics.
    trials, lines = [], [f'threshold  merged in {args.split}   GFLOPs   score']
    width = len(f'merged in {args.split}')
    for number, method in enumerate(methods, start=1):
        merged = merged_fraction(found, method.threshold) if method else 0.0
        trial, name = attempt(cfg, model, images, method, merged, args.batch_size)
        trials.append(trial)
        content['score'] = f'{name} on {len(images)} test images'
        content['plain'], *content['trials'] = map(as_json, trials)
        write_json(args.out, content)
        label = f'{trial.threshold:9.6f}' if method else '     none'
        lines.append(
            f'{label}  {merged:{width}.1%} {trial.gflops:8.4g} {trial.score:7.2f}'
        )
        print(f'tested {number} of {len(methods)} thresholds', flush=True)
    # In the end: the evaluators of MMDetection print much in between.
    print('\n'.join(lines))
    return trials, name


def draw(
    path: Path,
    found: Tensor,
    threshold: float,
    trials: list[Trial],
    name: str,
    split: str,
) -> None:
    """Draw merged share, GFLOPs and score over the threshold, as a PNG."""
    plain, *tried = trials
    figure = Figure(figsize=(8, 8), dpi=150, layout='constrained')
    share, cost, quality = figure.subplots(3, sharex=True)
    x = [trial.threshold for trial in tried]
    lowest = min(*x, found.quantile(0.02).item())
    grid = np.linspace(lowest, max(x), 200).tolist()
    share.plot(grid, [100 * merged_fraction(found, t) for t in grid], color=INK)
    share.plot(x, [100 * trial.merged for trial in tried], 'o', color=INK)
    share.set_ylabel(f'merged windows of {split} images [%]')
    share.set_ylim(-3, 103)
    for ax, values, base, label in (
        (cost, [t.gflops for t in tried], plain.gflops, 'GFLOPs per image'),
        (quality, [t.score for t in tried], plain.score, f'{name} [%]'),
    ):
        ax.plot(x, values, 'o-', color=INK)
        ax.axhline(base, color=INK, linestyle='--', linewidth=1)
        ax.annotate(
            f'without merging: {base:.4g}',
            (0.01, base),
            xycoords=('axes fraction', 'data'),
            xytext=(0, 3),
            textcoords='offset points',
            fontsize=8.5,
        )
        ax.set_ylabel(label)
        ax.margins(y=0.15)
    cost.set_ylim(bottom=0)
    for ax in (share, cost, quality):
        _style(ax)
        ax.axvline(threshold, color=ACCENT, linewidth=1.2)
    share.annotate(
        f'{threshold:.4f}',
        (threshold, 1),
        xycoords=('data', 'axes fraction'),
        xytext=(-4, -12),
        textcoords='offset points',
        ha='right',
        color=ACCENT,
    )
    quality.set_xlabel('threshold')
    with atomic_path(path) as partial:
        figure.savefig(partial, format='png')


def _style(ax: Axes) -> None:
    ax.spines[['top', 'right']].set_visible(False)
    ax.grid(axis='y', color='#e4e4e0', linewidth=0.8)
    ax.set_axisbelow(True)


if __name__ == '__main__':
    sys.exit(cli.run(main))
