"""Files that can be trusted: safe checkpoint loading, and writing all or nothing."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import FunctionType

import numpy as np
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

# HistoryBuffer pickles its statistics as getattr(HistoryBuffer, name).
_HISTORY_METHODS = {
    name: value
    for name, value in vars(HistoryBuffer).items()
    if isinstance(value, FunctionType) and not name.startswith('_')
}
# No object or structured arrays: a log holds numbers.
_LOG_DTYPES = ('bool', 'int32', 'int64', 'float16', 'float32', 'float64')


def allow_mmengine_checkpoints() -> None:
    """Let `torch.load(weights_only=True)` read the checkpoints MMEngine writes.

    Since torch 2.6 that is the default, and it refuses the log history that MMEngine
    stores beside the weights. What that history is made of is allow-listed here
    instead of switching the protection off: anything else is still refused.
    """
    if digit_version(torch.__version__) < digit_version('2.6'):
        return  # loads without restriction by default
    rebuild_array = np.empty(0).__reduce__()[0]
    rebuild_scalar = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *(type(np.dtype(name)) for name in _LOG_DTYPES),
            # numpy 1 files say `core`, numpy 2 files `_core`.
            (rebuild_array, 'numpy.core.multiarray._reconstruct'),
            (rebuild_array, 'numpy._core.multiarray._reconstruct'),
            (rebuild_scalar, 'numpy.core.multiarray.scalar'),
            (rebuild_scalar, 'numpy._core.multiarray.scalar'),
            (_history_method, 'builtins.getattr'),
        ]
    )


def _history_method(owner: object, name: str) -> Callable:
    # Stands in for getattr, through which a pickle could reach any function at all.
    if owner is HistoryBuffer and name in _HISTORY_METHODS:
        return _HISTORY_METHODS[name]
    raise UnpicklingError(
        f'refused to look up {name!r} of {owner!r}: a checkpoint may only name the '
        'methods of HistoryBuffer'
    )


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
