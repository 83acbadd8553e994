"""Everything that is worth knowing of a card, in one go of eight minutes at most.

    python tools/analysis_tools/measure_card.py --out card
    python tools/analysis_tools/measure_card.py --out card --device cpu --toy

Post-processing, the network, both together, and training steps, by `benchmark.py
--core`; then `tools/train.py` and `tools/test.py` as a whole, ViT-L at 640 on scenes
that are made for it. Each in a process of its own: what fails or takes too long leaves
the others alone. Each leaves what it printed in the folder, and the benchmarks their
JSON; a table of what was done is printed last, and kept beside them.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from eomt_mm import cli
from eomt_mm.files import make_folder

TOOLS = Path(__file__).parents[1]
CONFIG = TOOLS.parent / 'configs/demo/eomt_scenes_panoptic.py'
BENCHMARK = 'analysis_tools/benchmark.py'
WHOLE = ('train_whole', 'test_whole')
# What is asked for, the most telling first. Compilation takes half a minute a shape.
STEPS = {
    'postprocess': '--stage postprocess --kept 20 200 --against naive --rounds 20',
    'postprocess_large': '--stage postprocess --kept 20 200 --ori 3000 4000 --against '
    '--rounds 5',
    'network_compiled': '--stage network --size L --batch 1 32 --dtype bf16 fp8 '
    '--compile --against --rounds 20',
    'scenes': '--train 64 --val 128 --size 640 --workers 8',
    'train_whole': '--amp --cfg-options train_cfg.max_iters=40 '
    'train_cfg.val_interval=40 default_hooks.checkpoint.interval=40 '
    'default_hooks.logger.interval=10 param_scheduler.warmup=(5,10)',
    'test_whole': '--dtype bf16 --compile --cfg-options '
    'default_hooks.logger.interval=2',
    'network_1280': '--stage network --size L --image-size 1280 --batch 1 --dtype bf16 '
    '--compile --against --rounds 10',
    'inference': '--stage inference --size L --dtype bf16 --kept 200 --against '
    '--rounds 20',
    'train': '--stage train --size L --batch 8 --dtype bf16 --against naive --rounds 3',
    'network_autotuned': '--stage network --size L --batch 32 --dtype bf16 '
    '--max-autotune --against --rounds 20',
}
# ViT-L in the demo's config: the paper's network on scenes of its size.
LARGE = (
    'crop_size=(640,640) model.backbone.arch=vit_large_patch14_reg4_dinov2 '
    'model.backbone.patch_size=16 model.backbone.timm_args=None '
    'model.backbone.num_queries=200 model.backbone.num_blocks=4 '
    'train_dataloader.batch_size=8 train_dataloader.num_workers=8 '
    'train_dataloader.persistent_workers=True val_dataloader.num_workers=8 '
    'test_dataloader.num_workers=8 test_dataloader.batch_size=8'
).split()
# The same commands on a network that does nothing well, to try them anywhere.
TOY = '--size T --image-size 64 --batch 1 --rounds 1 --warmup 0 --ori 48 64'.split()
TOY_SCENES = '--train 8 --val 4 --size 64 --workers 1'.split()
TOY_RUN = ['train_dataloader.batch_size=2', 'train_cfg.max_iters=2']
TOY_RUN += ['train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
TOY_RUN += ['default_hooks.logger.interval=1', 'param_scheduler.warmup=(1,1)']


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', required=True, help='folder for what is found')
    parser.add_argument('--device', default='cuda', choices=['cuda', 'cpu'])
    parser.add_argument(
        '--minutes', type=cli.positive, default=8, help='for everything together'
    )
    parser.add_argument(
        '--steps', nargs='+', choices=STEPS, default=list(STEPS), help='which parts'
    )
    parser.add_argument(
        '--toy', action='store_true', help='a toy network, to try the commands'
    )
    return cli.parse_args(parser, argv)


def command(step: str, args: argparse.Namespace) -> list[str]:
    """The call of a tool for a step."""
    out = Path(args.out)
    options = STEPS[step].split()
    if args.toy:
        faster = ('--compile', '--max-autotune', 'fp8', '--amp')
        options = [word for word in options if word not in faster]
    if step == 'scenes':
        tool, words = 'dataset_converters/make_scenes.py', [str(out / 'scenes')]
        words += TOY_SCENES if args.toy else options
    elif step in WHOLE:
        work_dir = out / step
        words = [str(CONFIG), '--work-dir', str(work_dir), *options]
        words.append(f'data_root={out / "scenes" / "ADEChallengeData2016"}')
        if step == 'test_whole':
            tool = 'test.py'
            (checkpoint,) = (out / 'train_whole').glob('iter_*.pth')
            words.insert(1, str(checkpoint))
        else:
            tool = 'train.py'
        words += TOY_RUN if args.toy else LARGE
    else:
        tool = BENCHMARK
        words = ['--core', '--device', args.device, '--no-memory']
        words += ['--json', str(out / f'{step}.json'), *options]
        words += TOY if args.toy else []  # of an option given twice, the last counts
    return [sys.executable, str(TOOLS / tool), *words]


def run(step: str, args: argparse.Namespace, seconds: float) -> str:
    """Do a step; says how it went."""
    if seconds < 1:
        return 'left out: no time left'
    if step == 'test_whole' and not any(
        (Path(args.out) / 'train_whole').glob('iter_*.pth')
    ):
        return 'left out: train_whole has left no checkpoint'
    hidden = {'CUDA_VISIBLE_DEVICES': ''} if args.device == 'cpu' else {}
    with (Path(args.out) / f'{step}.txt').open('w') as log:
        try:
            done = subprocess.run(
                command(step, args),
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                env={**os.environ, **hidden},
            )
        except subprocess.TimeoutExpired:
            return 'cut short: what was found until then is kept'
    if done.returncode:
        return f'failed: see {step}.txt'
    return f'done{speed(step, args)}'


def speed(step: str, args: argparse.Namespace) -> str:
    """Images a second by the last line of a log, which is a mean of 10 iterations."""
    if step not in WHOLE:
        return ''
    text = (Path(args.out) / f'{step}.txt').read_text()
    kind = 'train' if step == 'train_whole' else 'test'
    seconds = re.findall(rf'\({kind}\).*? time: ([\d.]+)', text)
    if not seconds:
        return ''
    batch = {'train': 2, 'test': 1}[kind] if args.toy else 8
    return f', {batch / float(seconds[-1]):.1f} images/s'


def main(argv: list[str] | None = None) -> dict[str, str]:
    """Measures.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict: How each step went.

    Raises:
        UserError: The folder cannot be made.
    """
    args = parse_args(argv)
    make_folder(Path(args.out), '--out')
    end = time.monotonic() + 60 * args.minutes
    outcomes, lines = {}, ['| step | seconds | outcome |', '|---|---|---|']
    for step in args.steps:
        start = time.monotonic()
        outcomes[step] = run(step, args, end - start)
        taken = time.monotonic() - start
        lines.append(f'| {step} | {taken:.0f} | {outcomes[step]} |')
        print(lines[-1], flush=True)
    (Path(args.out) / 'steps.md').write_text('\n'.join(lines) + '\n')
    return outcomes


if __name__ == '__main__':
    sys.exit(cli.run(main))
