"""Writing files whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file all or nothing.

    Args:
        path: The file wanted. Its folder is created.

    Yields:
        A path beside it, with the same suffix, to write to. It takes the real name
        when the block ends, and is removed when the block raises. A process killed
        in between leaves the previous file whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same name every time: what a killed process left is overwritten, not kept.
    partial = path.with_name(f'.partial-{path.name}')
    try:
        yield partial
        with open(partial, 'rb') as file:
            os.fsync(file.fileno())  # or a power cut could leave the name without data
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written all or nothing.

    `default_hooks.checkpoint=dict(type='CheckpointHook', max_keep_ckpts=2,
    backend_args=dict(backend='atomic_local'))` lets a run be killed at any time.
    Keep two or more: CheckpointHook removes an old file before it writes the new.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        with atomic_path(filepath) as partial:
            partial.write_bytes(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text."""
        with atomic_path(filepath) as partial:
            partial.write_text(obj, encoding=encoding)
