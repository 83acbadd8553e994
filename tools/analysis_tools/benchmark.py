"""Speed and memory, with a check that results stay the same.

    python tools/analysis_tools/benchmark.py --core
    python tools/analysis_tools/benchmark.py --core --stage train --size S B --batch 2
    python tools/analysis_tools/benchmark.py CONFIG [CHECKPOINT] CONFIG ... --batch 1 8
    python tools/analysis_tools/benchmark.py --whole-path --photo photo.jpg
    python tools/analysis_tools/benchmark.py merging CONFIG [CHECKPOINT]
    python tools/analysis_tools/benchmark.py confidence CONFIG [CHECKPOINT]

Contenders are alternated in one run and compared with the first of their table; the
median counts. `--core` needs torch, timm, scipy and MMEngine alone, and sets this
package against transformers' EoMT (where installed) and a naive version of EoMT, its
post-processing also against MMDetection's (`--against mmdet`), and its attention
against a full mask. Configs, of this repository or stock ones, are measured as a
network alone and from an image file to its result. `--whole-path` also writes the
result, against the same weights in MMDet's MaskFormer, MMSeg's EncoderDecoder and
transformers. `merging` and `confidence` have their own options: `merging --help`.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import itertools
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from eomt_mm import cli
from eomt_mm.errors import UserError
from eomt_mm.files import make_folder, refuse_special
from eomt_mm.models.network import DTYPES, check_dtype
from measuring import core, inputs
from measuring.arguments import add_measuring_options, check_device
from measuring.contest import Contest, Plan, hold, refuse_differing
from measuring.limit import matmul_rate
from measuring.measure import Clock, bound_memory, peak_memory
from measuring.rows import machine, markdown, write_rows


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'configs', nargs='*', metavar='CONFIG', help='each may be followed by a .pth'
    )
    parser.add_argument('--core', action='store_true', help='without any framework')
    parser.add_argument(
        '--whole-path', action='store_true', help='from a photo file to a result file'
    )
    both = parser.add_argument_group('what to measure')
    both.add_argument('--batch', type=cli.positive, nargs='+', default=[1])
    both.add_argument('--dtype', nargs='+', choices=DTYPES, default=['fp32'])
    both.add_argument(
        '--compile', action='store_true', help='all contenders are compiled'
    )
    both.add_argument(
        '--max-autotune',
        dest='compile',
        action='store_const',
        const='max-autotune',
        help='the same, and the compiler tries more kernels, for minutes',
    )
    add_measuring_options(both)
    both.add_argument('--photo', help='an image file; default: made up')
    both.add_argument('--json', metavar='FILE', help='also write all figures here')
    parser.add_argument('--memory-of', nargs=2, help=argparse.SUPPRESS)
    only = parser.add_argument_group('--core')
    only.add_argument(
        '--stage',
        nargs='+',
        choices=core.STAGES,
        default=['network'],
        help='which part',
    )
    only.add_argument(
        '--size',
        nargs='+',
        choices=inputs.SIZES,
        default=['S'],
        help='of the model; T is a toy for trying a command',
    )
    only.add_argument('--image-size', type=cli.positive, nargs='+', default=[640])
    only.add_argument('--queries', type=cli.positive, nargs='+', default=[200])
    only.add_argument(
        '--kept',
        type=cli.not_negative,
        nargs='+',
        default=[20],
        help='queries that find something',
    )
    only.add_argument(
        '--ori',
        type=cli.positive,
        nargs=2,
        default=(960, 1280),
        help='height and width of results, and of a made-up photo',
    )
    only.add_argument(
        '--against',
        nargs='*',
        choices=(*core.OPPONENTS, core.STOCK),
        default=core.OPPONENTS,
    )
    args = cli.parse_args(parser, argv)
    if args.core and (args.whole_path or args.configs):
        parser.error('--core takes no configs, and is no --whole-path')
    if not (args.core or args.whole_path or args.configs):
        parser.error('give --core, or --whole-path, or configs')
    if args.photo and (fault := fault_of(args.photo)):
        parser.error(f'--photo {args.photo}: {fault}')
    # What would be ignored is not an option.
    if args.core:
        if max(args.kept) > min(args.queries):
            parser.error(f'--kept {max(args.kept)} of --queries {min(args.queries)}')
        return args
    for name in ('stage', 'size', 'image_size', 'queries', 'against'):
        if getattr(args, name) != parser.get_default(name):
            parser.error(f'--{name.replace("_", "-")} belongs to --core')
    if len(args.kept) > 1:
        parser.error(f'--kept {args.kept}: several belong to --core')
    if args.whole_path and args.batch != [1]:
        parser.error(f'--batch {args.batch}: --whole-path does one photo at a time')
    return args


def fault_of(photo: str) -> str | None:
    """Return why a file is not a photo."""
    try:
        refuse_special(photo)
        with Image.open(photo) as file:
            file.load()
    except UserError as error:
        return str(error)
    except FileNotFoundError:
        return 'no such file'
    except OSError:  # Pillow's own are of this kind
        return 'not an image that can be read; give a JPEG or PNG file'
    return None


def core_contests(args: argparse.Namespace, device: torch.device) -> list[Contest]:
    """Combine all options, without combinations that make no difference."""
    tasks = [task for stage in args.stage for task in core.STAGES[stage]]
    contests, rates = {}, {}
    for task, size, side, batch, queries, kept in itertools.product(
        tasks, args.size, args.image_size, args.batch, args.queries, args.kept
    ):
        case = core.Case(task, size, side, batch, queries, kept, tuple(args.ori))
        if str(case) in contests:
            continue
        contenders = core.rivals(case, args.against, args.dtype, args.compile)
        operations = None
        if not args.memory_of:
            for dtype in args.dtype:
                if dtype not in rates:
                    rates[dtype] = matmul_rate(DTYPES[dtype], device)
            operations = core.giga_operations(case)
        contests[str(case)] = Contest(
            case=str(case),
            images=1 if task in core.POSTPROCESS else batch,
            contenders={
                str(c): partial(core.prepare, case, c, device) for c in contenders
            },
            # Without fp32 there is nothing that results could be equal to.
            exact={
                str(c)
                for c in contenders
                if c.dtype == contenders[0].dtype == 'fp32' and c.who != 'free'
            },
            operations=operations and 1e9 * operations * batch,
            rates={str(c): rates.get(c.dtype) for c in contenders},
        )
    return list(contests.values())


def make_contests(args: argparse.Namespace, device: torch.device) -> list[Contest]:
    for dtype in args.dtype:
        check_dtype(dtype, device)
    if args.core:
        return core_contests(args, device)
    if args.whole_path:
        return whole_path_contests(args, device)
    return config_contests(args, device)


def config_contests(args: argparse.Namespace, device: torch.device) -> list[Contest]:
    """Make contests of all configs at each batch size: network and whole pipeline."""
    from measuring import configs

    models = cli.configs_and_checkpoints(args.configs)
    photo = args.photo or made_up_photo(args)
    return [
        Contest(
            case=f'{part}, batch {batch}',
            images=batch,
            contenders={
                str(entry): partial(
                    configs.prepare, part, entry, photo, batch, args.kept[0], device
                )
                for entry in (
                    configs.Entry(config, checkpoint, dtype, args.compile)
                    for config, checkpoint in models
                    for dtype in args.dtype
                )
            },
        )
        for part in configs.PARTS
        for batch in args.batch
    ]


def whole_path_contests(
    args: argparse.Namespace, device: torch.device
) -> list[Contest]:
    """Make the contests from a photo file to a result file, for each config."""
    from measuring import configs, whole_path

    photo = args.photo or made_up_photo(args)
    width, height = Image.open(photo).size
    contests = []
    for config, checkpoint in cli.configs_and_checkpoints(
        args.configs or default_configs()
    ):
        contenders = {}
        for who, dtype in itertools.product(whole_path.CONTENDERS, args.dtype):
            compiled = bool(args.compile) and who != 'hugging face'
            entry = configs.Entry(config, checkpoint, dtype, compiled)
            contenders[f'{who} {dtype}' + ' compiled' * compiled] = partial(
                whole_path.prepare, who, entry, photo, args.kept[0], device, args.folder
            )
        contests.append(
            Contest(
                case=f'{Path(config).stem}, file of {width} x {height} to file',
                images=1,
                contenders=contenders,
                # transformers resizes photos in another way.
                exact={'stock fp32'} if args.dtype[0] == 'fp32' else set(),
            )
        )
    return contests


def default_configs() -> list[str]:
    """Return the configs of a panoptic and a semantic ViT-S."""
    from measuring.whole_path import CONFIGS

    root = Path(__file__).resolve().parents[2]
    return [str(root / config) for config in CONFIGS]


def made_up_photo(args: argparse.Namespace) -> str:
    """Write a JPEG file of the size `--ori`."""
    height, width = args.ori
    pixels = inputs.photographs(1, max(args.ori))[0, :, :height, :width]
    pixels = (pixels * 50 + 120).clamp(0, 255).byte().permute(1, 2, 0)
    path = args.folder / 'photo.jpg'
    Image.fromarray(pixels.numpy()).save(path, quality=90)
    return str(path)


def main(argv: list[str] | None = None) -> dict | None:
    """Measure and print.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict: The figures of `merging`; empty for other measurements.

    Raises:
        UserError: Something in the command is wrong, or results differ.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ['merging']:
        from measuring import merging

        return merging.main(argv[1:])
    if argv[:1] == ['confidence']:
        from measuring import confidence_cost

        args = confidence_cost.parse_args(argv[1:])
        clock = time.process_time if args.processor_time else time.perf_counter
    else:
        args, clock = parse_args(argv), time.perf_counter
    device = check_device(args.device)
    # Where fp32 is asked for, it is meant.
    torch.backends.cudnn.allow_tf32 = False
    if args.json:
        make_folder(Path(args.json).parent, '--json')
    with tempfile.TemporaryDirectory(prefix='eomt-benchmark-') as folder:
        args.folder = Path(folder)
        if argv[:1] == ['confidence']:
            contests = confidence_cost.contests(args, device, made_up_photo(args))
        else:
            contests = make_contests(args, device)
        if args.memory_of:
            print(memory_alone(contests, *args.memory_of, device))
        else:
            measure(args, contests, device, argv, clock)


def memory_alone(
    contests: list[Contest], index: str, who: str, device: torch.device
) -> int:
    """Return the bytes that a contender needs; this process does nothing else."""
    bound_memory()
    work = contests[int(index)].contenders[who]()
    if who.endswith('compiled'):
        work()
    return peak_memory(work, device)


def measure(
    args: argparse.Namespace,
    contests: list[Contest],
    device: torch.device,
    argv: list[str],
    clock: Clock,
) -> None:
    """Run all cases, print and write their results."""
    about = machine(device)
    if clock is time.process_time:
        about['seconds'] = 'of the processor'
    print(', '.join(f'{key} {value}' for key, value in about.items()))
    rows, differing = [], []
    for index, contest in enumerate(contests):
        fresh = None
        if not args.no_memory:

            def fresh(who: str, index: int = index) -> list[str]:
                own = os.path.abspath(__file__)
                return [own, *argv, '--memory-of', str(index), who]

        plan = Plan(device, args.rounds, args.warmup, fresh, clock)
        found, different = hold(contest, plan)
        print(markdown(found), flush=True)
        rows += found
        differing += [f'{contest.case}: {who}' for who in different]
        if args.json:  # after each, so that an interrupted run leaves the others
            write_rows(args.json, rows, ['python', sys.argv[0], *argv], about)
    refuse_differing(differing)


if __name__ == '__main__':
    sys.exit(cli.run(main))
