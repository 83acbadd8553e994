"""The whole work on a small example: scenes, training, test, pictures.

    python tools/demo.py
    python tools/demo.py --task panoptic

Each step is a command that also works alone; the last lines print them. Paths are
relative to the root of the repository, whatever the current directory.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from eomt_mm import cli

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Task:
    """The config of a demo, its folders, and the score that it prints, in percent."""

    config: str
    work_dir: str
    score: str
    key: str
    factor: float = 1


TASKS = {
    'semantic': Task(
        'configs/demo/eomt_scenes_semantic.py', 'work_dirs/demo', 'mIoU', 'mIoU'
    ),
    'panoptic': Task(
        'configs/demo/eomt_scenes_panoptic.py',
        'work_dirs/demo_panoptic',
        'PQ',
        'coco_panoptic/PQ',
    ),
    'instance': Task(
        'configs/demo/eomt_scenes_instance.py',
        'work_dirs/demo_instance',
        'segm AP',
        'coco/segm_mAP',
        100,
    ),
}


class StepFailed(Exception):
    """A step of the demo has failed and reported why."""

    def __init__(self, name: str, status: int) -> None:
        # A process killed by a signal has a negative status; shells count from 128.
        self.status = status if status > 0 else 128 - status
        super().__init__(f'the demo stopped in its step "{name}" (status {status})')


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train and test a small EoMT')
    parser.add_argument('--task', choices=[*TASKS], default='semantic')
    parser.add_argument('--work-dir', help="another directory than the task's")
    parser.add_argument('--config', help="another config than the task's")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run all steps.

    Returns:
        int: 0, or the status of the step that failed.
    """
    args = parse_args(argv)
    task = TASKS[args.task]
    config = args.config or task.config
    work_dir = args.work_dir or task.work_dir
    test_dir = f'{work_dir}/test'
    pictures, curves = f'{work_dir}/pictures', f'{work_dir}/training.png'
    try:
        step(
            'scenes',
            'draws 4,200 scenes into data/scenes, about 15 seconds; '
            'nothing to do if they are there',
            ['tools/dataset_converters/make_scenes.py', 'data/scenes'],
        )
        train = ['tools/train.py', config, '--work-dir', work_dir]
        about = 'about 5 minutes on 2 cores, less on a GPU'
        if is_unfinished(config, work_dir):
            about = f'{about}; goes on with the run that was interrupted'
            step('training', about, [*train, '--resume'])
        else:
            step('training', about, train)
        checkpoint = last_checkpoint(work_dir)
        if checkpoint is None:
            raise StepFailed('training: no checkpoint was written', 1)
        test = ['tools/test.py', config, checkpoint, '--work-dir', test_dir]
        step('test', '200 scenes it never saw, about 20 seconds', test)
        show = ['tools/analysis_tools/show_results.py', config, checkpoint]
        step('pictures', 'about 10 seconds', [*show, '--out', pictures])
        plot = ['tools/analysis_tools/plot_run.py', work_dir, '--out', curves]
        step('curves', 'about 5 seconds', plot)
    except StepFailed as failure:
        print(failure, file=sys.stderr)
        return failure.status

    score = task.factor * cli.read_scores(ROOT / test_dir)[task.key]
    print(f'\n{task.score}: {score:.2f}')
    print(f'photo | ground truth | prediction: {shown(f"{pictures}/panels.png")}')
    print(f'the run (loss, learning rates, masks): {shown(curves)}')
    print('\nThe commands were:')
    if Path.cwd() != ROOT:
        print(f'  cd {shlex.quote(str(ROOT))}')
    for command in (train, test):
        print(f'  {shlex.join([interpreter(), *command])}')
    return 0


def step(name: str, about: str, command: list[str]) -> None:
    """Run one command, whose output appears at once.

    Args:
        name: Name of the step.
        about: Its work and duration.
        command: A tool with its arguments.

    Raises:
        StepFailed: If the command did not end with status 0.
    """
    print(f'\n== {name}: {about}\n   {shlex.join(["python", *command])}\n', flush=True)
    env = cli.environment(ROOT)
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env)
    try:
        status = process.wait()
    except KeyboardInterrupt:  # the step got it, too, and puts its things in order
        status = process.wait() or 130
    if status:
        raise StepFailed(name, status)


def last_checkpoint(work_dir: str) -> str | None:
    """Return the checkpoint that MMEngine recorded last, relative to the root."""
    checkpoint = cli.last_checkpoint(ROOT / work_dir)
    return checkpoint and f'{work_dir}/{checkpoint.name}'


def is_unfinished(config: str, work_dir: str) -> bool:
    """Whether a run was interrupted after its first checkpoint."""
    max_iters = Config.fromfile(ROOT / config).train_cfg.max_iters
    return 0 < cli.iterations_done(ROOT / work_dir) < max_iters


def shown(path: str) -> str:
    """Return a path relative to the current directory."""
    return os.path.relpath(ROOT / path)


def interpreter() -> str:
    """Return this Python, relative to the root if it is the repository's own."""
    python = Path(sys.executable)
    return str(python.relative_to(ROOT)) if python.is_relative_to(ROOT) else str(python)


if __name__ == '__main__':
    # `run` turns a full disk or a wrong config into one line; a step keeps its status.
    sys.exit(cli.run(lambda argv: sys.exit(main(argv))))
