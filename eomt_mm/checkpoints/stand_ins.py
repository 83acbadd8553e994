"""Stand-ins for the classes that MMEngine stores, used while a checkpoint is read.

A pickle may *call* everything that its reader lists. `numpy.ndarray` and `numpy.dtype`
are therefore never listed: an array of objects over a buffer of bytes is a forged
pointer. Each name below leads to a class or function of this file that accepts only
what MMEngine writes. Afterwards `to_plain` turns stand-ins into plain values.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from pickle import UnpicklingError

import numpy as np
from mmengine.logging import HistoryBuffer
from torch import Tensor

# A log holds numbers. The names are those that NumPy pickles.
DTYPES = {
    name: np.dtype(name)
    for name in ('b1', 'i1', 'u1', 'i2', 'i4', 'i8', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')
}
# HistoryBuffer stores its statistics as getattr(HistoryBuffer, name).
STATISTICS = ('min', 'max', 'mean', 'current')
# Deeper than anything that MMEngine writes, far from the limits of Python's stack.
MAX_DEPTH = 50
# Values and characters, those that are shared counted each time: lists within lists
# would take for ever to print.
MAX_SIZE = 10_000_000
_ATOMS = (str, bytes, bool, int, float, type(None))


class DType:
    """Stand-in for `numpy.dtype`: a type of numbers, by its name."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(name, str) or name not in DTYPES:
            raise UnpicklingError(f'refused a dtype other than {list(DTYPES)}')
        self.value = DTYPES[name]

    def __setstate__(self, state: tuple) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) == 8 else None
        if order not in ('<', '|') or state[2:5] != (None, None, None):
            raise UnpicklingError('refused a dtype with fields or another byte order')


class Array:
    """Stand-in for `numpy.ndarray`: made by `reconstruct` alone, filled with numbers.

    A file cannot call it.
    """

    value: np.ndarray

    def __new__(cls, *args: object) -> 'Array':  # noqa: D102
        raise UnpicklingError('refused to call numpy.ndarray')

    def __setstate__(self, state: tuple) -> None:
        try:
            _, shape, dtype, fortran, data = state
            count = math.prod(shape)
            if any(side < 0 for side in shape) or len(shape) > 8:
                raise ValueError('shape')
            if len(data) != count * dtype.value.itemsize or not isinstance(data, bytes):
                raise ValueError('length')
            order = 'F' if fortran else 'C'
            flat = np.frombuffer(data, dtype.value, count)
            self.value = flat.reshape(shape, order=order).copy()
        except (ValueError, TypeError, AttributeError) as error:
            raise UnpicklingError('refused an array of other than numbers') from error


class History:
    """Stand-in for MMEngine's `HistoryBuffer`.

    MMEngine's class keeps statistics from the file for the rest of the process; here
    they are read and dropped.
    """

    value: HistoryBuffer

    def __new__(cls, *args: object) -> 'History':  # noqa: D102
        if args:
            raise UnpicklingError('refused to call HistoryBuffer with arguments')
        return super().__new__(cls)

    def __setstate__(self, state: dict) -> None:
        try:
            logs = state['_log_history'].value
            counts = state['_count_history'].value
            length = int(state['max_length'])
            if logs.ndim != 1 or logs.shape != counts.shape:
                raise ValueError('shapes')
            self.value = HistoryBuffer(max_length=max(length, 1))
            # Not copied: any number of histories could name one array.
            self.value._log_history, self.value._count_history = logs, counts
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UnpicklingError('refused a HistoryBuffer without numbers') from error


def reconstruct(subtype: type, shape: tuple, code: bytes) -> Array:
    """Stand-in for NumPy's `_reconstruct`: an array that is yet to be filled."""
    if subtype is not Array:
        raise UnpicklingError('refused to reconstruct other than a numpy.ndarray')
    return object.__new__(Array)


def scalar(dtype: DType, data: bytes) -> np.generic:
    """Stand-in for NumPy's `scalar`: one number."""
    if not isinstance(dtype, DType) or not isinstance(data, bytes):
        raise UnpicklingError('refused a scalar of other than numbers')
    if len(data) != dtype.value.itemsize:
        raise UnpicklingError('refused a scalar of another length than its dtype')
    return np.frombuffer(data, dtype.value)[0]


def statistic(owner: object, name: str) -> str:
    """Stand-in for `getattr`, through which a file could reach any function."""
    if owner is not History or name not in STATISTICS:
        raise UnpicklingError(
            'refused an attribute: a checkpoint may only name the statistics of '
            'HistoryBuffer'
        )
    return name


def empty_bytes() -> bytes:
    """Stand-in for `bytes`, which writes b'' as a call without arguments."""
    return b''


def mapping(content: dict) -> dict:
    """Stand-in for MMEngine's `ConfigDict`, in the meta of some datasets."""
    # Exact type: a subclass could have methods of its own.
    if type(content) is not dict:
        raise UnpicklingError('refused a ConfigDict of other than a dict')
    return content


# Under the names that Python 3 has for them; NumPy 1 says `core`, NumPy 2 `_core`.
STAND_INS: dict[str, Callable] = {
    'numpy.dtype': DType,
    'numpy.ndarray': Array,
    'numpy.core.multiarray._reconstruct': reconstruct,
    'numpy._core.multiarray._reconstruct': reconstruct,
    'numpy.core.multiarray.scalar': scalar,
    'numpy._core.multiarray.scalar': scalar,
    'mmengine.logging.history_buffer.HistoryBuffer': History,
    'mmengine.config.config.ConfigDict': mapping,
    'builtins.getattr': statistic,
    'builtins.bytes': empty_bytes,
}


def to_plain(content: object) -> object:
    """Replace stand-ins by plain values, and containers by fresh ones.

    Fresh containers have no attributes that a file could have set, except the
    `_metadata` of a state dict. Shared values stay shared.

    Args:
        content (object): Result of PyTorch's reader.

    Returns:
        object: Tensors, NumPy numbers and arrays, `HistoryBuffer`s and builtin types.

    Raises:
        UnpicklingError: If a value contains itself, is nested too deep, or is of
            another type.
    """
    return _Plain().convert(content, 0)


_UNFINISHED = object()


class _Plain:
    def __init__(self) -> None:
        self._done: dict[int, tuple[object, object, int]] = {}
        self._size = 0

    def convert(self, value: object, depth: int) -> object:
        if isinstance(value, (*_ATOMS, np.generic)):
            self._count(1 + len(value) if isinstance(value, (str, bytes)) else 1)
            return value
        # The original is kept beside its outcome, so that no id is used again.
        _, plain, size = self._done.get(id(value), (None, None, 1))
        self._count(size)
        if plain is _UNFINISHED or depth > MAX_DEPTH:
            raise UnpicklingError(
                f'refused content that contains itself or is more than {MAX_DEPTH} deep'
            )
        if plain is not None:
            return plain
        # Until it is done, it answers for itself: what contains it is refused.
        self._done[id(value)] = value, _UNFINISHED, 1
        before = self._size
        plain = self._convert(value, depth + 1)
        self._done[id(value)] = value, plain, 1 + self._size - before
        return plain

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAX_SIZE:
            raise UnpicklingError('refused content that repeats itself without end')

    def _convert(self, value: object, depth: int) -> object:
        if isinstance(value, (Array, History, DType)):
            return value.value
        if isinstance(value, Tensor):
            return value.detach()
        if isinstance(value, (list, tuple, set)):
            kind = next(k for k in (list, tuple, set) if isinstance(value, k))
            return kind(self.convert(item, depth) for item in value)
        if isinstance(value, dict):
            kind = next(k for k in (OrderedDict, Counter, dict) if isinstance(value, k))
            plain = kind()
            # Not value.items(): a file can set attributes of an OrderedDict.
            for key, item in kind.items(value):
                plain[self.convert(key, depth)] = self.convert(item, depth)
            metadata = getattr(value, '__dict__', {}).get('_metadata')
            if isinstance(metadata, dict):
                plain._metadata = self.convert(metadata, depth)
            return plain
        raise UnpicklingError(f'refused an object of type {type(value).__name__}')
