"""Savings of token merging: images per second, tokens and GFLOPs by policy.

    python tools/analysis_tools/benchmark.py merging CONFIG CHECKPOINT

CONFIG has a token_merging, or --cfg-options gives it one. The model without merging and
each batch policy take turns in every round, on the same images. Two things are timed:
the network (a batch of windows in, class and mask logits out) and the whole pipeline
(photos in memory in, results at their size out). GFLOPs and tokens are means over an
image of the network's size, that is over a window.

Without CHECKPOINT the weights are random; give token_merging.keep to fix the numbers of
tokens. Without a dataset, give photographs: --images DIR.

With --parts the time of every block and of the merging itself are listed instead, for
the first batch size and policy, and GFLOPs are also counted operation by operation.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from eomt_mm import cli
from eomt_mm.errors import UserError
from eomt_mm.models.token_merging import TokenMerging
from eomt_mm.models.token_merging.batching import POLICIES
from eomt_mm.models.token_merging.build import build_merging

from .inference import Images, load_model, merging_with, windows_of
from .measure import alternate
from .operations import count_operations
from .output import write_json
from .parts import block_seconds, merging_seconds
from .tokens import count_tokens, forward_macs

PLAIN = 'plain'


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        'benchmark.py merging',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file')
    parser.add_argument('--images', help='folder of photographs to take')
    parser.add_argument(
        '--number', type=cli.positive, help='images (twice the largest batch)'
    )
    parser.add_argument('--batch-sizes', type=cli.positive, nargs='+', default=[32, 1])
    parser.add_argument('--policies', nargs='+', choices=POLICIES, default=[*POLICIES])
    parser.add_argument('--rounds', type=cli.positive, default=5)
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--parts', action='store_true', help='time of every block')
    parser.add_argument('--json', type=Path, help='also write the figures to this file')
    return cli.parse_args(parser, argv)


@torch.inference_mode()
def main(argv: list[str] | None = None) -> dict:
    """Measure and print.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict: The figures.

    Raises:
        UserError: If the command, the config or the data are wrong.
    """
    args = parse_args(argv)
    if args.json:
        cli.check_output(args.json)
    cfg = cli.load_config(args)
    if args.checkpoint:
        cli.check_checkpoint(args.checkpoint)
    if not args.images:
        cli.check_data(cfg, 'test')
    options = cfg.model.backbone.pop('token_merging', None)
    if not options:
        raise UserError(
            f'{args.config} has no token merging: add --cfg-options '
            'model.backbone.token_merging.type=eomt_mm.ALGM '
            'model.backbone.token_merging.threshold=0.9'
        )
    cfg.model.backbone.type = 'eomt_mm.MergingViT'
    model = load_model(cfg, args.checkpoint)
    methods = {p: with_policy(options, p) for p in args.policies}
    if not next(iter(methods.values())).takes_policy:
        # All policies are the same: one row, under the name of the method.
        (method, *_) = methods.values()
        methods = {type(method).__name__: method}
    methods = {PLAIN: None, **methods}
    number = args.number or 2 * max(args.batch_sizes)
    images = Images(cfg, number, folder=args.images)
    windows = torch.cat([windows_of(model, batch) for batch in images.batches(1)])
    device = windows.device
    print(
        f'{device}, {torch.get_num_threads()} threads, '
        f'{"bfloat16 autocast" if args.amp else "float32"}, {len(images)} images, '
        f'{len(windows)} windows of {windows.shape[2]} x {windows.shape[3]}'
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
        if args.parts:
            method, size = list(methods.values())[1], args.batch_sizes[0]
            figures = parts(model, method, windows[:size], args.rounds)
            report_parts(method, size, figures)
            if args.json:
                write_json(args.json, figures)
            return figures
        figures = {}
        for size in args.batch_sizes:
            figures[size] = compare(args, model, methods, images, windows, size)
            report(size, figures[size])
            if args.json:  # after each, so that a kill loses only the one it is in
                write_json(args.json, figures)
    return figures


def with_policy(options: dict, policy: str) -> TokenMerging:
    """Return the config's token merging with another batch policy."""
    method = build_merging(options)
    method.policy = policy
    return method


def compare(
    args: argparse.Namespace,
    model: nn.Module,
    methods: dict[str, TokenMerging | None],
    images: Images,
    windows: Tensor,
    size: int,
) -> dict[str, dict]:
    """Time all variants at one batch size, in turn."""
    whole = len(windows) // size * size
    batches = [batch for batch in images.batches(size) if len(batch['inputs']) == size]
    if not whole or not batches:
        raise UserError(
            f'--batch-sizes {size}, but there are {len(images)} images with '
            f'{len(windows)} windows: expected one batch at least'
        )
    chunks = windows[:whole].split(size)
    if 'max_windows' in (model.test_cfg or {}):
        model.test_cfg['max_windows'] = size

    def network() -> None:
        for chunk in chunks:
            model.network(chunk)

    def pipeline() -> None:
        for batch in batches:
            model.test_step(batch)

    figures = {name: {} for name in methods}
    for name, method in methods.items():
        with merging_with(model.backbone, method), count_tokens(model.backbone) as n:
            network()  # warms up, too
        figures[name]['tokens'] = n.means()
        macs = forward_macs(model.backbone, model.mask_head, n)
        figures[name]['gflops'] = macs / 1e9
    for what, work, count in (
        ('network', network, whole),
        ('pipeline', pipeline, size * len(batches)),
    ):
        times = take_turns(model, methods, work, args.rounds, 1)
        for name, spent in times.items():
            ratios = [a / b for a, b in zip(times[PLAIN], spent, strict=True)]
            figures[name][what] = dict(
                images_per_second=count / statistics.median(spent),
                ratio=statistics.median(ratios),
                ratio_range=(min(ratios), max(ratios)),
            )
    return figures


def take_turns(
    model: nn.Module,
    methods: dict[str, TokenMerging | None],
    work: Callable[[], None],
    rounds: int,
    warmup: int,
) -> dict[str, list[float]]:
    """Measure a function's seconds in every round, with each method."""

    def with_method(method: TokenMerging | None) -> Callable[[], None]:
        def run() -> None:
            with merging_with(model.backbone, method):
                work()

        return run

    contenders = {name: with_method(method) for name, method in methods.items()}
    device = next(model.parameters()).device
    outcomes = alternate(contenders, rounds, warmup, device)
    for name, outcome in outcomes.items():
        if outcome.error:
            raise UserError(f'{name} could not be timed: {outcome.error}')
    return {name: outcome.seconds for name, outcome in outcomes.items()}


def report(size: int, figures: dict[str, dict]) -> None:
    """Print the figures of one batch size."""
    print(f'\nbatch {size:<4}   network             pipeline')
    print('policy   windows/s   ratio    images/s   ratio    GFLOPs  tokens')
    for name, row in figures.items():
        cells = '  '.join(
            f'{row[job]["images_per_second"]:9.2f}  {row[job]["ratio"]:5.2f}x  '
            for job in ('network', 'pipeline')
        )
        mean = statistics.mean(row['tokens'])
        print(f'{name:7}  {cells}{row["gflops"]:8.4g}  {mean:6.0f}')
    for name, row in figures.items():
        print(f'{name:7} tokens per block:', *(f'{n:.0f}' for n in row['tokens']))
    spread = [row['network']['ratio_range'] for row in figures.values()]
    print(
        'ratios of single rounds:',
        ', '.join(
            f'{name} {low:.2f}-{high:.2f}'
            for name, (low, high) in zip(figures, spread, strict=True)
            if name != PLAIN
        ),
    )


def parts(model: nn.Module, method: TokenMerging, batch: Tensor, rounds: int) -> dict:
    """Measure the time of the parts of one batch, and GFLOPs in two ways."""
    vit, head = model.backbone, model.mask_head

    def run() -> None:
        model.network(batch)

    variants = {PLAIN: None, 'merged': method}
    found = {name: {} for name in variants}
    for name, variant in variants.items():
        with merging_with(vit, variant), count_tokens(vit) as tokens:  # warms up, too
            counted = count_operations(run, model) / len(batch) / 1e9
        formula = forward_macs(vit, head, tokens) / 1e9
        found[name] = dict(
            tokens=tokens.means(), gflops=formula, gflops_counted=counted
        )
    spent = take_turns(model, variants, run, rounds, 0)
    blocks = {name: [] for name in variants}
    steps = []
    for _ in range(rounds):
        for name, variant in variants.items():
            with merging_with(vit, variant):
                blocks[name].append(block_seconds(vit, run))
        with merging_with(vit, method):
            steps.append(merging_seconds(run))
    for name in variants:
        found[name]['seconds'] = statistics.median(spent[name])
        found[name]['blocks'] = [
            [statistics.median(times) for times in zip(*halves, strict=True)]
            for halves in zip(*blocks[name], strict=True)
        ]
    found['merging'] = {
        step: statistics.median(turn[step] for turn in steps) for step in steps[0]
    }
    return found


def report_parts(method: TokenMerging, size: int, found: dict) -> None:
    """Print the figures of `parts`."""
    print(f'\none batch of {size}, milliseconds   (policy {method.policy})')
    print('          without merging        with merging')
    print('block  tokens  attn.    MLP   tokens  attn.    MLP   (attn. with merging)')
    plain, merged = found[PLAIN], found['merged']
    for i, halves in enumerate(zip(plain['blocks'], merged['blocks'], strict=True)):
        cells = [
            f'{side["tokens"][i]:7.0f} {1000 * attention:6.0f} {1000 * mlp:6.0f}'
            for side, (attention, mlp) in zip((plain, merged), halves, strict=True)
        ]
        print(f'{i + 1:5} ', '  '.join(cells))
    steps = found['merging']
    listed = ', '.join(f'{name} {1000 * s:.1f}' for name, s in steps.items())
    total = sum(steps.values())
    print(
        f'whole network: {1000 * plain["seconds"]:.0f} without, '
        f'{1000 * merged["seconds"]:.0f} with merging; of that the merging itself '
        f'{1000 * total:.1f} ({total / merged["seconds"]:.1%}): {listed}'
    )
    for name, side in ((PLAIN, plain), ('merged', merged)):
        difference = side['gflops_counted'] / side['gflops'] - 1
        print(
            f'GFLOPs per image, {name}: {side["gflops"]:.2f} by the formula, '
            f'{side["gflops_counted"]:.2f} counted ({difference:+.2%})'
        )
