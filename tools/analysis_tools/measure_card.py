"""Everything that is worth knowing of a card, in one go of eight minutes at most.

    python tools/analysis_tools/measure_card.py --out card
    python tools/analysis_tools/measure_card.py --out card --device cpu --toy

Post-processing, the network, network and post-processing, and training steps, by
`benchmark.py --core`, each in a process of its own: what fails or takes too long
leaves the others alone. Each writes a JSON file and what it printed into the folder; a
table of what was done is printed last, and kept beside them.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import subprocess
import sys
import time
from pathlib import Path

from eomt_mm import cli
from eomt_mm.files import make_folder

BENCHMARK = Path(__file__).parent / 'benchmark.py'
# What is asked for, the most telling first. Compilation takes half a minute a shape.
STEPS = {
    'postprocess': '--stage postprocess --kept 20 200 --against naive --rounds 20',
    'postprocess_large': '--stage postprocess --kept 20 200 --ori 3000 4000 --against '
    '--rounds 5',
    'network_compiled': '--stage network --size L --batch 1 32 --dtype bf16 --compile '
    '--against --rounds 20',
    'network_1280': '--stage network --size L --image-size 1280 --batch 1 --dtype bf16 '
    '--compile --against --rounds 10',
    'inference': '--stage inference --size L --dtype bf16 --kept 200 --against '
    '--rounds 20',
    'train': '--stage train --size L --batch 8 --dtype bf16 --against naive --rounds 3',
}
# The same commands on a network that does nothing well, to try them anywhere.
TOY = '--size T --image-size 64 --batch 1 --rounds 1 --warmup 0 --ori 48 64'.split()


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
    """The call of the benchmark for a step."""
    options = STEPS[step].split()
    if args.toy:  # of an option that is given twice, the last one counts
        options = [word for word in options if word != '--compile'] + TOY
    result = Path(args.out) / f'{step}.json'
    fixed = ['--core', '--device', args.device, '--no-memory', '--json', str(result)]
    return [sys.executable, str(BENCHMARK), *fixed, *options]


def run(step: str, args: argparse.Namespace, seconds: float) -> str:
    """Do a step; says how it went."""
    if seconds < 1:
        return 'left out: no time left'
    with (Path(args.out) / f'{step}.txt').open('w') as log:
        try:
            done = subprocess.run(
                command(step, args),
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return 'cut short: what was found until then is kept'
    return 'done' if done.returncode == 0 else f'failed: see {step}.txt'


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
