"""MMEngine's local files, written all or nothing."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from .files import atomic_path


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written all or nothing.

    `default_hooks.checkpoint=dict(type='eomt_mm.CheckpointHook',
    backend_args=dict(backend='atomic_local'))` lets a run be killed at any time. With
    MMEngine's own CheckpointHook keep two files or more (`max_keep_ckpts`): it removes
    the old one before it writes the new.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        with atomic_path(filepath) as partial:
            partial.write_bytes(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text."""
        with atomic_path(filepath) as partial:
            partial.write_text(obj, encoding=encoding)
