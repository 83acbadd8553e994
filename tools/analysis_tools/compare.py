r"""Models of any config side by side: cost, speed, memory and scores.

    python tools/analysis_tools/compare.py CONFIG [CHECKPOINT] CONFIG [CHECKPOINT] ...
    python tools/analysis_tools/compare.py --size 640 640 \
        EoMT-S=configs/eomt/eomt_vits_coco_panoptic_640_1x.py \
        Mask2Former-R50=mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py

Configs are files, those of the installed frameworks as mmdet::NAME and mmseg::NAME, or
models of Hugging Face transformers as hf::FOLDER, or hf::FILE.json with random weights.
Where a checkpoint is given, and the data of the config are there, the evaluator of the
config measures its score. Pre-trained weights are neither needed nor downloaded. A row
with a gap names the reason; the other rows are complete.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Language models of some stock detectors would be looked for on the hub.
os.environ.setdefault('HF_HUB_OFFLINE', '1')


from eomt_mm import cli  # noqa: E402
from eomt_mm.errors import UserError  # noqa: E402
from eomt_mm.files import make_folder  # noqa: E402
from eomt_mm.models.network import DTYPES  # noqa: E402
from measuring.arguments import add_measuring_options, check_device  # noqa: E402
from measuring.comparison.model import (  # noqa: E402
    Model,
    Timing,
    count,
    parse_words,
    prepare,
)
from measuring.comparison.report import Comparison  # noqa: E402
from measuring.comparison.scores import (  # noqa: E402
    Test,
    quoted_score,
    refuse_untestable,
)
from measuring.contest import Contest, Plan, hold  # noqa: E402
from measuring.jobs import Failure, Launch, run_jobs  # noqa: E402
from measuring.measure import bound_memory, first_line, peak_memory  # noqa: E402
from measuring.rows import machine  # noqa: E402
from measuring.transformers_models import is_one  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ('torch', 'mmcv', 'mmdet', 'mmsegmentation', 'transformers')


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'configs',
        nargs='+',
        metavar='CONFIG',
        help='perhaps as LABEL=CONFIG, and perhaps followed by a .pth',
    )
    parser.add_argument(
        '--size',
        type=cli.positive,
        nargs=2,
        metavar=('H', 'W'),
        help='of the image that is counted and timed; default: what each config '
        'says, or 640 640',
    )
    parser.add_argument(
        '--batch', type=cli.positive, default=1, help='images at a time'
    )
    parser.add_argument(
        '--dtype',
        choices=[dtype for dtype in DTYPES if dtype != 'fp8'],
        default='fp32',
    )
    parser.add_argument('--compile', action='store_true')
    add_measuring_options(parser)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='options of all configs, for instance data_root=DIR for the tests; '
        'model.* changes what is counted and timed, too',
    )
    parser.add_argument('--out', default='work_dirs/compare', help='folder to write')
    parser.add_argument('--memory-of', help=argparse.SUPPRESS)
    return cli.parse_args(parser, argv)


def main(argv: list[str] | None = None) -> Comparison | None:
    """Compare, print and write.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        Comparison: All rows.

    Raises:
        UserError: If no model can be measured, or the command is wrong.
        KeyboardInterrupt: Names the files that are written.
    """
    args = parse_args(argv)
    argv = sys.argv[1:] if argv is None else argv
    models = parse_words(args.configs)
    settings = cli.settings_of(args.cfg_options)
    for model in models:
        model.settings = settings
    timing = Timing(
        tuple(args.size) if args.size else None,
        args.batch,
        args.dtype,
        args.compile,
        check_device(args.device),
    )
    if args.memory_of:
        bound_memory()
        (model,) = (m for m in models if m.label == args.memory_of)
        print(peak_memory(prepare(model, timing), timing.device))
        return None

    out = Path(args.out)
    make_folder(out, '--out')
    about = machine(timing.device)
    where = about.get('gpu') or f'{about["processor"]} with {about["threads"]} threads'
    versions = ', '.join(f'{name} {about[name]}' for name in PACKAGES if name in about)
    compiled = ', compiled' if args.compile else ''
    comparison = Comparison(
        models,
        ['python', 'tools/analysis_tools/compare.py', *argv],
        f'{where}, {versions}, {args.dtype}{compiled}, batch {args.batch}',
    )
    try:
        written = compare(comparison, timing, args, argv)
    except KeyboardInterrupt:
        if all(model.parameters is None for model in models):
            raise
        comparison.setting += '; interrupted before the end'
        path = comparison.write(out)[0]
        raise KeyboardInterrupt(
            f'interrupted; what is known until then is in {path}'
        ) from None
    if all(model.parameters is None for model in models):
        raise UserError(f'nothing is known of any model: {models[0].remarks[0]}')
    print(f'\n{comparison.markdown()}')
    for path in written:
        print(path)
    return comparison


def compare(
    comparison: Comparison, timing: Timing, args: argparse.Namespace, argv: list[str]
) -> list[Path]:
    """Fill in all rows; each new result is written to the files at once."""
    models, out = comparison.models, Path(args.out)
    for model in models:
        if model.checkpoint:  # a file that cannot be read ends it before any work
            cli.check_checkpoint(model.checkpoint)
    count_all(models, timing)
    # What cannot be tested is told before time is spent on the rest.
    tests = tests_of(models, args.cfg_options, out)
    comparison.write(out)
    time_all(models, timing, args, argv)
    comparison.write(out)
    test_all(tests, lambda: comparison.write(out))
    return comparison.write(out)


def count_all(models: list[Model], timing: Timing) -> None:
    """Fill in parameters, operations and published scores."""
    for model in models:
        try:
            if not is_one(model.config):
                model.quoted = quoted_score(model.config)
            count(model, timing.size)
            print(
                f'{model.label}: {model.parameters / 1e6:.2f} M parameters', flush=True
            )
        except Exception as error:  # whatever a foreign config brings with it
            model.remark('network', reason(error))
            print(f'{model.label}: {model.remarks[-1]}', flush=True)


def time_all(
    models: list[Model], timing: Timing, args: argparse.Namespace, argv: list[str]
) -> None:
    """Measure speed and memory, all models in turn."""
    counted = {model.label: model for model in models if model.parameters is not None}
    if not counted:
        return
    print(f'timing {len(counted)} models, {args.rounds} rounds', flush=True)
    contest = Contest(
        case='network alone',
        images=timing.batch,
        contenders={
            label: partial(prepare, model, timing) for label, model in counted.items()
        },
    )

    def fresh(label: str) -> list[str]:
        return [os.path.abspath(__file__), *argv, '--memory-of', label]

    plan = Plan(
        timing.device, args.rounds, args.warmup, None if args.no_memory else fresh
    )
    rows, _ = hold(contest, plan)
    for row in rows:
        model = counted[row.contender]
        model.milliseconds = row.milliseconds
        model.images_per_second = row.images_per_second
        model.mebibytes = row.mebibytes
        if row.error:
            model.remark('speed', row.error)


def tests_of(models: list[Model], options: list[str], out: Path) -> list[Test]:
    """Make the tests of all models with a checkpoint."""
    tests = []
    for model in models:
        if model.checkpoint is None:
            continue
        try:
            if is_one(model.config):
                raise UserError('models of transformers are not tested here')
            cfg = model.read_for_test()
            refuse_untestable(cfg, model.checkpoint)
        except Exception as error:  # whatever a foreign config brings with it
            model.remark('score', reason(error))
            print(f'{model.label}: {model.remarks[-1]}', flush=True)
            continue
        folder = out / f'test-{re.sub(r"[^0-9A-Za-z.-]+", "_", model.label)}'
        tests.append(Test(model, cfg, ROOT / 'tools/test.py', folder, options))
    return tests


def test_all(tests: list[Test], on_end: Callable[[], object]) -> None:
    """Measure scores, one after the other.

    Args:
        tests (list[Test]): Tests of the models.
        on_end (Callable): Called after each of them.
    """
    if not tests:
        return
    print(f'testing {len(tests)} models; each has a log.txt in its folder', flush=True)

    def report(test: Test, failure: Failure | None, seconds: float) -> None:
        if failure:
            test.model.remark('score', failure.reason)
        outcome = failure.reason if failure else test.outcome
        print(f'{test.name}: {outcome} ({seconds:.0f} s)', flush=True)
        on_end()

    run_jobs(tests, 1, Launch(Path.cwd(), cli.environment(ROOT)), report)


def reason(error: Exception) -> str:
    """Return the whole message of a UserError, the first line of other errors."""
    if isinstance(error, UserError):
        return ' '.join(str(error).split())
    return first_line(error)


if __name__ == '__main__':
    sys.exit(cli.run(main))
