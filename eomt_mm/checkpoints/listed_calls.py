"""The calls, names and states that a checkpoint may ask for, by the kinds of arguments.

`walk` follows a pickle with kinds in place of values. Each function here gets the kinds
of a call's arguments, and returns the kind of its result, or None where no checkpoint
of MMEngine or PyTorch has such arguments.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .stand_ins import DTYPES, STATISTICS

MAX_DIMENSIONS = 16
HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'


@dataclass(frozen=True)
class Global:
    """A name that the pickle imports."""

    name: str


@dataclass(frozen=True)
class Made:
    """The product of an instruction by its kind; `size` counts a storage's elements."""

    kind: str
    size: int = 0


@dataclass(frozen=True, eq=False)
class Row:
    """A tuple. It is not a Python tuple, since comparing those recurses."""

    items: tuple
    depth: int
    size: int


# Numbers, strings, None and booleans are their own kinds.
Value = Global | Made | Row | str | bytes | int | float | bool | None


def is_count(value: Value) -> bool:
    """Whether a value is a count."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_made(value: Value, kind: str) -> bool:
    """Whether a value is the product of a call or instruction, of a kind."""
    return isinstance(value, Made) and value.kind == kind


def _tensor(items: tuple) -> Made | None:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`."""
    if len(items) == 6:
        *items, requires_grad, hooks = items
        if not isinstance(requires_grad, bool) or not is_made(hooks, 'ordered'):
            return None
    if len(items) != 4 or not is_made(items[0], 'storage'):
        return None
    storage, offset, size, stride = items
    if not isinstance(size, Row) or not isinstance(stride, Row) or not is_count(offset):
        return None
    sides, steps = size.items, stride.items
    if len(sides) != len(steps) or len(sides) > MAX_DIMENSIONS:
        return None
    if not all(map(is_count, (*sides, *steps))):
        return None
    count = math.prod(sides)
    last = offset + sum(
        (side - 1) * step for side, step in zip(sides, steps, strict=True)
    )
    # Steps of 0 would make an endless tensor of a single value.
    if count and (count > storage.size or last >= storage.size):
        return None
    return Made('tensor')


def _parameter(items: tuple) -> Made | None:
    """`_rebuild_parameter(tensor, requires_grad, hooks)`."""
    fits = (
        len(items) == 3 and is_made(items[0], 'tensor') and is_made(items[2], 'ordered')
    )
    return Made('tensor') if fits and isinstance(items[1], bool) else None


def _encoded(items: tuple) -> Made | None:
    """`encode(text, 'latin1')`: bytes in protocol 2. Other codecs may never end."""
    fits = len(items) == 2 and isinstance(items[0], str) and items[1] == 'latin1'
    return Made('bytes', len(items[0])) if fits else None


def _dtype(items: tuple) -> Made | None:
    """`dtype(name, align, copy)`."""
    fits = len(items) == 3 and isinstance(items[0], str) and items[0] in DTYPES
    flags = all(isinstance(flag, (bool, int)) for flag in items[1:])
    return Made('dtype') if fits and flags else None


def _array(items: tuple) -> Made | None:
    """`_reconstruct(ndarray, (0,), b'b')`."""
    fits = (
        len(items) == 3
        and items[0] == Global('numpy.ndarray')
        and isinstance(items[1], Row)
        and items[1].items == (0,)
        and items[2] == Made('bytes', 1)
    )
    return Made('array') if fits else None


def _scalar(items: tuple) -> Made | None:
    """`scalar(dtype, bytes)`."""
    fits = len(items) == 2 and is_made(items[0], 'dtype') and is_made(items[1], 'bytes')
    return Made('number') if fits else None


def _statistic(items: tuple) -> Made | None:
    """`getattr(HistoryBuffer, 'mean')`."""
    fits = len(items) == 2 and items[0] == Global(HISTORY) and items[1] in STATISTICS
    return Made('statistic') if fits else None


def _one(kind: str, result: str) -> Callable[[tuple], Made | None]:
    """Check a call with one argument of a kind."""

    def check(items: tuple) -> Made | None:
        return Made(result) if len(items) == 1 and is_made(items[0], kind) else None

    return check


def _size(items: tuple) -> Made | None:
    """`torch.Size((1, 2))`."""
    fits = len(items) == 1 and isinstance(items[0], Row)
    return Made('size') if fits and all(map(is_count, items[0].items)) else None


def _ordered(items: tuple) -> Made | None:
    """`OrderedDict()`, or in files of Python 2 `OrderedDict([[key, value], ...])`."""
    return Made('ordered') if not items else _one('list', 'ordered')(items)


def _nothing(items: tuple) -> Made | None:
    """`bytes()`: how protocol 2 writes b''."""
    return None if items else Made('bytes')


CALLS: dict[str, Callable[[tuple], Made | None]] = {
    'collections.OrderedDict': _ordered,
    'collections.Counter': _one('dict', 'counter'),
    'builtins.set': _one('list', 'set'),
    'builtins.bytes': _nothing,
    'builtins.getattr': _statistic,
    '_codecs.encode': _encoded,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch.Size': _size,
    'numpy.dtype': _dtype,
    'numpy.core.multiarray._reconstruct': _array,
    'numpy._core.multiarray._reconstruct': _array,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy._core.multiarray.scalar': _scalar,
    'mmengine.config.config.ConfigDict': _one('dict', 'dict'),
}
# These are named, and never called; storages are named besides.
NAMES = ('numpy.ndarray', HISTORY)
STATES: dict[str, Callable[[Value], bool]] = {
    'ordered': lambda state: is_made(state, 'dict'),
    'history': lambda state: is_made(state, 'dict'),
    'dtype': lambda state: isinstance(state, Row),
    'array': lambda state: isinstance(state, Row),
}
