"""Tools that run other tools: their environment, and what these leave behind."""

import json
import os
from pathlib import Path


def environment(root: Path) -> dict[str, str]:
    """Environment variables with which this repository's package is found.

    Args:
        root (Path): The repository.
    """
    paths = [str(root), *filter(None, [os.environ.get('PYTHONPATH')])]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}


def last_checkpoint(work_dir: Path) -> Path | None:
    """The checkpoint MMEngine noted last, if it is there."""
    note = work_dir / 'last_checkpoint'
    if not note.is_file():
        return None
    # The note has an absolute path, and the folder may have been moved.
    checkpoint = work_dir / Path(note.read_text().strip()).name
    return checkpoint if checkpoint.is_file() else None


def iterations_done(work_dir: Path) -> int:
    """Iterations that a training has behind it, as far as it can be resumed."""
    checkpoint = last_checkpoint(work_dir)
    return int(checkpoint.stem.rpartition('_')[2]) if checkpoint else 0  # iter_500.pth


def read_scores(test_dir: Path) -> dict[str, float]:
    """What the latest test in a directory has measured.

    MMEngine writes TIME/TIME.json with one record for each test.
    """
    latest = max(test_dir.glob('*/*.json'))
    return json.loads(latest.read_text())
