"""The paper's Table 7, its ladder, and Tables 8 and E in miniature, from nothing.

    python tools/reproduce.py
    python tools/reproduce.py --table annealing --seeds 0 1 2 3 4
    python tools/reproduce.py --table ood
    python tools/reproduce.py --seconds 200

Trains the small variants on synthetic scenes, each from several seeds and with the same
budget, tests them, and sets measured figures beside the paper's. Each step is a command
that also works alone. The same command continues a killed run and does not repeat
finished ones. Paths are relative to the root of the repository, whatever the current
directory.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from eomt_mm import cli
from eomt_mm.errors import UserError
from eomt_mm.files import sole_user

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools/analysis_tools'))

from measuring.jobs import LOG, Failure, Job, Launch, run_alone, run_jobs  # noqa: E402
from measuring.reproduction.cost import cost_of  # noqa: E402
from measuring.reproduction.plan import DEFAULT, TABLES, configs  # noqa: E402
from measuring.reproduction.report import Report  # noqa: E402
from measuring.reproduction.runs import Pace, Recipe, Run, refuse_owned  # noqa: E402


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--table',
        nargs='+',
        choices=TABLES,
        default=[*DEFAULT],
        help=f'default: {" ".join(DEFAULT)}; ood needs scenes out of distribution',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        '--iterations', type=int, default=750, help='of each training; default 750'
    )
    budget.add_argument(
        '--seconds',
        type=float,
        help='of each training instead, about: a short one '
        'of each variant determines the number of iterations',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        help='trainings at a time; default: one for each core, or one on a GPU',
    )
    parser.add_argument('--work-dir', default='work_dirs/reproduce')
    parser.add_argument(
        '--scenes', default='data/scenes', help='written if they are not there'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='further options of all trainings and tests, which the tables name',
    )
    args = cli.parse_args(parser, argv)
    for name in ('iterations', 'seconds', 'jobs'):
        value = getattr(args, name)
        if value is not None and value <= 0:
            parser.error(f'--{name} is {value}; give more than 0')
    if min(args.seeds) < 0 or len({*args.seeds}) < len(args.seeds):
        parser.error(f'--seeds {args.seeds}: give different numbers from 0')
    refuse_owned(cli.settings_of(args.cfg_options))
    return args


def main(argv: list[str] | None = None) -> Report:
    """Run all remaining steps, and print the tables.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        Report: All figures.

    Raises:
        UserError: If some trainings failed; the figures of the others are written.
        KeyboardInterrupt: Explains how to continue.
    """
    args = parse_args(argv)
    with sole_user(ROOT / args.work_dir) as lock:
        try:
            return reproduce(args, lock)
        except KeyboardInterrupt:
            raise KeyboardInterrupt('interrupted; the same command continues') from None


def reproduce(args: argparse.Namespace, lock: int) -> Report:
    """Run all steps; their commands inherit `lock`."""
    at_once = args.jobs or default_jobs()
    alone = Launch(ROOT, cli.environment(ROOT), (lock,))
    threads = max(1, len(os.sched_getaffinity(0)) // at_once)
    beside = Launch(ROOT, alone.env | {'OMP_NUM_THREADS': str(threads)}, (lock,))

    manifest = scenes(args.scenes, 'ood' in args.table, alone)
    options = (f'data_root={args.scenes}/ADEChallengeData2016', *args.cfg_options)
    recipe = Recipe(ROOT, args.work_dir, manifest, options)
    trained = configs(args.table)
    iterations = dict.fromkeys(trained, args.iterations)
    if args.seconds:
        paces = [Pace(recipe, config) for config in trained]
        fail(finish(paces, at_once, beside))
        iterations = {p.config: max(1, round(args.seconds / p.seconds)) for p in paces}
    warn_of_warmup(recipe, iterations)
    runs = [
        Run(recipe, config, tests, seed, iterations[config])
        for seed in args.seeds  # all variants of one seed before the next
        for config, tests in trained.items()
    ]
    tables = [TABLES[name] for name in args.table]
    report = Report(tables, runs, setting(args, iterations, manifest))
    folder = ROOT / args.work_dir
    failures = finish(runs, at_once, beside, lambda: report.write(folder))
    if not any(run.is_finished for run in runs):
        fail(failures)

    tested = sorted({test for run in runs for test in run.tests})
    report.costs = cost_of(recipe, tested, alone)
    written = report.write(folder)
    print(f'\n{report.markdown()}')
    for path in written:
        print(os.path.relpath(path))
    fail(failures)
    return report


def fail(failures: Sequence[Failure]) -> None:
    """Raise a UserError if there are failures."""
    if failures:
        job, reason = failures[0].job, failures[0].reason
        raise UserError(
            f'{len(failures)} trainings failed; {job.name}: {reason}; see '
            f'{os.path.relpath(job.path / LOG)}. The same command tries them again'
        )


def warn_of_warmup(recipe: Recipe, iterations: Mapping[str, int]) -> None:
    """Warn if the shortest training ends before its learning rates have risen."""
    config, shortest = min(iterations.items(), key=lambda item: item[1])
    cfg = cli.read_config(str(ROOT / config))
    cli.override(cfg, cli.settings_of(recipe.options))
    warmup = sum(cfg.param_scheduler.warmup)
    if shortest <= warmup:
        print(
            f'warning: {shortest:,} iterations end within the warm-up of {warmup:,}: '
            'fine for a trial, but such scores say nothing of the networks',
            file=sys.stderr,
            flush=True,
        )


def default_jobs() -> int:
    """Choose the jobs at a time: one for each core, one on a GPU."""
    return 1 if torch.cuda.is_available() else len(os.sched_getaffinity(0))


def scenes(folder: str, ood: bool, launch: Launch) -> str:
    """Write the scenes unless they are there; returns what distinguishes them."""
    manifest = ROOT / folder / 'make_scenes.json'
    tool = 'tools/dataset_converters/make_scenes.py'
    if not manifest.is_file():
        run_alone([tool, folder, *(['--ood'] if ood else [])], launch)
    text = manifest.read_text()
    if ood and not json.loads(text).get('ood'):
        raise UserError(
            f'{folder} has no scenes out of distribution: give another --scenes, or '
            f'write them anew with {tool} {folder} --ood --overwrite'
        )
    return text


def setting(
    args: argparse.Namespace, iterations: Mapping[str, int], manifest: str
) -> str:
    """Describe data and budget for a reader."""
    scenes = json.loads(manifest)
    data = (
        '{train:,} synthetic scenes of {size} x {size} pixels, {val:,} others to test'
    )
    budget = f'{args.iterations:,} iterations'
    if args.seconds:
        each = ', '.join(f'{Path(c).stem} {n:,}' for c, n in iterations.items())
        budget = f'about {args.seconds:g} s, or iterations of {each},'
    seeds = ', '.join(map(str, args.seeds))
    text = f'{data.format(**scenes)}; {budget} for each network and seed ({seeds})'
    if args.cfg_options:
        text += f'; with the options {shlex.join(args.cfg_options)}'
    return text


def finish(
    jobs: Sequence[Job],
    at_once: int,
    launch: Launch,
    on_progress: Callable[[], object] = lambda: None,
) -> list[Failure]:
    """Run unfinished jobs, and report progress."""
    left = [job for job in jobs if not job.is_finished]
    print(
        f'{len(jobs)} trainings, {len(jobs) - len(left)} of them finished before; '
        f'{at_once} at a time, each with a log.txt in its folder',
        flush=True,
    )
    started, ended = time.monotonic(), 0

    def report(job: Job, failure: Failure | None, seconds: float) -> None:
        nonlocal ended
        ended += 1
        rest = (time.monotonic() - started) / ended * (len(left) - ended)
        outcome = f'FAILED: {failure.reason}' if failure else job.outcome
        print(
            f'[{ended}/{len(left)}] {job.name}: {outcome} ({seconds:.0f} s; '
            f'about {rest / 60:.0f} min left)',
            flush=True,
        )
        on_progress()

    return run_jobs(left, at_once, launch, report)


if __name__ == '__main__':
    sys.exit(cli.run(main))
