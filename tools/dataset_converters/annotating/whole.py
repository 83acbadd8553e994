"""Converting all images of a release: everything is written, or nothing."""

import argparse
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from multiprocessing import Pool
from pathlib import Path

from eomt_mm import cli
from eomt_mm.errors import UserError

Task = tuple[Path, int, Path]  # an image, its number in the split, folder to write to


def parse_args(
    argv: list[str] | None, description: str, source: str
) -> argparse.Namespace:
    """Parse the command line of a converter: `src`, `--workers`, `--overwrite`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('src', type=Path, help=source)
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count(),
        help='processes; the result is the same (default: all cores, %(default)s)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace what was written before'
    )
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f'--workers is {args.workers}; give 1 or more')
    return args


def is_done(src: Path, outputs: Sequence[str], overwrite: bool) -> bool:
    """Whether all outputs are there, and are to stay.

    Raises:
        UserError: If some of them are there, and are to stay.
    """
    there = [name for name in outputs if (src / name).exists()]
    if overwrite or not there:
        return False
    if len(there) < len(outputs):
        raise UserError(
            f'{src} has {there[0]}, but not all of {", ".join(outputs)}; '
            'move it away, or pass --overwrite to replace it'
        )
    return True


def convert_all(
    src: Path,
    images: Mapping[str, Sequence[Path]],
    outputs: Sequence[str],
    convert: Callable[[Task], dict],
    write: Callable[[Path, str, list[dict]], None],
    workers: int,
) -> None:
    """Write everything into a folder of its own, then move it to `src`.

    Args:
        src (Path): Folder of the release.
        images (Mapping[str, Sequence[Path]]): Images of each split.
        outputs (Sequence[str]): What is written, as names in `src`.
        convert (Callable): Converts a task in a process of its own, into a record.
        write (Callable): Writes the annotation files of a split: folder, split and
            records.
        workers (int): Processes.
    """
    out = src / f'.{outputs[0]}.partial'
    shutil.rmtree(out, ignore_errors=True)  # of a run that was killed
    try:
        out.mkdir()
        # They leave an interrupt to this process, which stops them.
        start = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
        with Pool(workers, *start) if workers > 1 else nullcontext() as pool:
            for split, paths in images.items():
                print(f'{len(paths)} images of {split}')
                tasks = [(path, index, out) for index, path in enumerate(paths)]
                steps = (pool.imap if pool else map)(convert, tasks)
                write(out, split, list(cli.track(steps, len(tasks))))
        for name in outputs:
            remove(src / name)
            (out / name).rename(src / name)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
