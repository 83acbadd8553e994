"""Tools that run other tools: their environment, and what these leave behind."""

import json
import os
import re
from pathlib import Path


def environment(root: Path) -> dict[str, str]:
    """Return environment variables with which this repository's package is found.

    Args:
        root (Path): The repository.
    """
    paths = [str(root), *filter(None, [os.environ.get('PYTHONPATH')])]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}


def last_checkpoint(work_dir: Path) -> Path | None:
    """Return the checkpoint MMEngine noted last, if it is there."""
    note = work_dir / 'last_checkpoint'
    if not note.is_file():
        return None
    # The note has an absolute path, and the folder may have been moved.
    checkpoint = work_dir / Path(note.read_text(errors='replace').strip()).name
    # Unlike Path's, it is False for names that cannot be.
    return checkpoint if os.path.isfile(checkpoint) else None


def iterations_done(work_dir: Path) -> int:
    """Return the iterations that a training has done and can resume from."""
    checkpoint = last_checkpoint(work_dir)
    found = checkpoint and re.fullmatch(r'iter_([0-9]{1,12})', checkpoint.stem)
    return int(found[1]) if found else 0


def read_scores(test_dir: Path) -> dict[str, float]:
    """Return what the latest test in a directory has measured.

    MMEngine writes TIME/TIME.json with one record for each test.
    """
    latest = max(test_dir.glob('*/*.json'))
    return json.loads(latest.read_text())
