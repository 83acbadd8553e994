"""The barrier before unpickling: a pickle's instructions are followed but not run.

A pickle is a program for a small stack machine. `check_program` walks through it with
kinds in place of values: it knows what each instruction would leave on the stack. It
refuses globals, calls and instructions that no checkpoint of MMEngine or PyTorch needs,
calls with arguments of another kind, and tensors that reach beyond their storage. It
needs neither torch's reader nor the stand-ins, so that a fault in one of the three does
not open the door.

The instructions are documented in `pickletools` of the standard library.
"""

import math
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from .stand_ins import DTYPES, STATISTICS

# Far more than any network's checkpoint has, few enough to be walked in seconds.
MAX_INSTRUCTIONS = 3_000_000
# Hashing a tuple recurses without a limit in CPython.
MAX_TUPLE_DEPTH = 10
MAX_DIMENSIONS = 16
# Values and characters that are taken out of the memo. A few instructions could make
# what takes for ever to hash, to copy or to print.
MAX_REPEATED = 10_000_000

HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
# Bytes of an element.
STORAGES = {
    'BoolStorage': 1,
    'ByteStorage': 1,
    'CharStorage': 1,
    'ShortStorage': 2,
    'HalfStorage': 2,
    'BFloat16Storage': 2,
    'IntStorage': 4,
    'FloatStorage': 4,
    'LongStorage': 8,
    'DoubleStorage': 8,
}


class Refused(Exception):
    """A pickle asks for more than weights; the text names it."""


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
_MARK = Made('mark')


def check_program(stream: BinaryIO, storage_bytes: Mapping[str, int] | int) -> Value:
    """Walk through one pickle.

    Args:
        stream (BinaryIO): A stream at the start of the pickle, afterwards at its end.
        storage_bytes (Mapping[str, int] | int): Bytes of each storage by key if known,
            else of the whole file.

    Returns:
        Value: The kind of the pickled value.

    Raises:
        Refused: If the pickle asks for something that is not listed.
        ValueError, IndexError, KeyError: If the pickle is damaged.
    """
    machine = _Machine(storage_bytes)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_INSTRUCTIONS:
            raise Refused(f'more than {MAX_INSTRUCTIONS:,} instructions')
        if opcode.name == 'STOP':
            return machine.stack.pop()
        step = _STEPS.get(opcode.name)
        if step is None:
            raise Refused(f'the instruction {opcode.name}')
        step(machine, argument)
    raise ValueError('no end')


class _Machine:
    """The stack, the memo, and the effect of each instruction on them."""

    def __init__(self, storage_bytes: Mapping[str, int] | int) -> None:
        self.stack: list[Value] = []
        self.memo: dict[int, Value] = {}
        self.repeated = 0
        self.storage_bytes = storage_bytes

    def push(self, value: Value) -> None:
        self.stack.append(value)

    def look_up(self, argument: str) -> None:
        # In protocol 2, names are those of Python 2.
        module, _, name = argument.partition(' ')
        module, name = NAME_MAPPING.get(
            (module, name), (IMPORT_MAPPING.get(module, module), name)
        )
        full = f'{module}.{name}'
        known = full in _CALLS or full in _NAMES
        if not known and not (module == 'torch' and name in STORAGES):
            raise Refused(full)
        self.push(Global(full))

    def call(self, _: None) -> None:
        arguments, function = self._pop(Row), self.stack.pop()
        if not isinstance(function, Global) or function.name not in _CALLS:
            raise Refused(f'a call of {_describe(function)}')
        result = _CALLS[function.name](arguments.items)
        if result is None:
            raise Refused(f'a call of {function.name} with unusual arguments')
        self.push(result)

    def new(self, _: None) -> None:
        arguments, cls = self._pop(Row), self.stack.pop()
        if cls != Global(HISTORY) or arguments.items:
            raise Refused(f'a new {_describe(cls)}')
        self.push(Made('history'))

    def build(self, _: None) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        kind = made.kind if isinstance(made, Made) else None
        if kind not in _STATES or not _STATES[kind](state):
            raise Refused(f'a state of {_describe(made)}')

    def load_storage(self, _: None) -> None:
        row = self._pop(Row).items
        # Files of the format before PyTorch 1.6 have a sixth item, for views.
        if row[:1] != ('storage',) or len(row) < 5 or row[5:] not in ((), (None,)):
            raise Refused('an unusual storage')
        _, kind, key, location, count = row[:5]
        itemsize = STORAGES.get(_name_of(kind).removeprefix('torch.'))
        texts = isinstance(key, str) and isinstance(location, str)
        if itemsize is None or not texts or not _counts(count):
            raise Refused('an unusual storage')
        size = count * itemsize
        if isinstance(self.storage_bytes, int):
            self.storage_bytes -= size
            fits = self.storage_bytes >= 0
        else:
            fits = self.storage_bytes.get(key) == size
        if not fits:
            raise ValueError(f'storage {key[:20]!r} lacks its {size:,} bytes')
        self.push(Made('storage', count))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        value = self.memo[index]
        self.repeated += _weight(value)
        if self.repeated > MAX_REPEATED:
            raise Refused('the same content over and over')
        # A pickler never fills or copies a container again: each is paid for once.
        if _is(value, 'list') or _is(value, 'dict'):
            value = Made(f'{value.kind} once more')
        self.push(value)

    def append(self, _: None) -> None:
        self.stack.pop()
        self._expect('list')

    def append_many(self, _: None) -> None:
        self._pop_mark()
        self._expect('list')

    def set_item(self, _: None) -> None:
        del self.stack[-2:]
        self._expect('dict', 'ordered', 'counter')

    def set_items(self, _: None) -> None:
        self._pop_mark()
        self._expect('dict', 'ordered', 'counter')

    def tuple(self, items: Sequence[Value]) -> None:
        depth = 1 + max((i.depth for i in items if isinstance(i, Row)), default=0)
        if depth > MAX_TUPLE_DEPTH:
            raise Refused(f'tuples that are more than {MAX_TUPLE_DEPTH} deep')
        self.push(Row(tuple(items), depth, 1 + sum(map(_weight, items))))

    def tuple_of_marked(self, _: None) -> None:
        self.tuple(self._pop_mark())

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError('empty stack')
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        self.tuple(items)

    def _pop(self, kind: type) -> Row:
        value = self.stack.pop()
        if not isinstance(value, kind):
            raise Refused('arguments that are not a tuple')
        return value

    def _pop_mark(self) -> list[Value]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError('no mark')
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _expect(self, *kinds: str) -> None:
        made = self.stack[-1]
        if not isinstance(made, Made) or made.kind not in kinds:
            raise Refused(f'items for {_describe(made)}')


_STEPS: dict[str, Callable[[_Machine, object], None]] = {
    'PROTO': lambda machine, _: None,
    'GLOBAL': _Machine.look_up,
    'REDUCE': _Machine.call,
    'NEWOBJ': _Machine.new,
    'BUILD': _Machine.build,
    'BINPERSID': _Machine.load_storage,
    'MARK': lambda machine, _: machine.push(_MARK),
    'BINPUT': _Machine.put,
    'LONG_BINPUT': _Machine.put,
    'BINGET': _Machine.get,
    'LONG_BINGET': _Machine.get,
    'APPEND': _Machine.append,
    'APPENDS': _Machine.append_many,
    'SETITEM': _Machine.set_item,
    'SETITEMS': _Machine.set_items,
    'TUPLE': _Machine.tuple_of_marked,
    'EMPTY_TUPLE': lambda machine, _: machine.tuple_of(0),
    'TUPLE1': lambda machine, _: machine.tuple_of(1),
    'TUPLE2': lambda machine, _: machine.tuple_of(2),
    'TUPLE3': lambda machine, _: machine.tuple_of(3),
    'EMPTY_LIST': lambda machine, _: machine.push(Made('list')),
    'EMPTY_DICT': lambda machine, _: machine.push(Made('dict')),
    'EMPTY_SET': lambda machine, _: machine.push(Made('set')),
    'NONE': lambda machine, _: machine.push(None),
    'NEWTRUE': lambda machine, _: machine.push(True),
    'NEWFALSE': lambda machine, _: machine.push(False),
    **dict.fromkeys(
        ('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE'),
        _Machine.push,
    ),
    'SHORT_BINSTRING': lambda machine, text: machine.push(Made('bytes', len(text))),
}


def _describe(value: Value) -> str:
    if isinstance(value, (Global, Made)):
        return _name_of(value)
    return f'a {type(value).__name__}'


def _name_of(value: Value) -> str:
    if isinstance(value, Global):
        return value.name
    return f'a {value.kind}' if isinstance(value, Made) else ''


def _weight(value: Value) -> int:
    """Count the values and characters that are hashed or copied with a value."""
    if isinstance(value, Row):
        return value.size
    if isinstance(value, str):
        return 1 + len(value)
    return 1 + value.size if _is(value, 'bytes') else 1


def _counts(value: Value) -> bool:
    """Whether a value is a count."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is(value: Value, kind: str) -> bool:
    return isinstance(value, Made) and value.kind == kind


def _tensor(items: tuple) -> Made | None:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`."""
    if len(items) == 6:
        *items, requires_grad, hooks = items
        if not isinstance(requires_grad, bool) or not _is(hooks, 'ordered'):
            return None
    if len(items) != 4 or not _is(items[0], 'storage'):
        return None
    storage, offset, size, stride = items
    if not isinstance(size, Row) or not isinstance(stride, Row) or not _counts(offset):
        return None
    sides, steps = size.items, stride.items
    if len(sides) != len(steps) or len(sides) > MAX_DIMENSIONS:
        return None
    if not all(map(_counts, (*sides, *steps))):
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
    fits = len(items) == 3 and _is(items[0], 'tensor') and _is(items[2], 'ordered')
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
    fits = len(items) == 2 and _is(items[0], 'dtype') and _is(items[1], 'bytes')
    return Made('number') if fits else None


def _statistic(items: tuple) -> Made | None:
    """`getattr(HistoryBuffer, 'mean')`."""
    fits = len(items) == 2 and items[0] == Global(HISTORY) and items[1] in STATISTICS
    return Made('statistic') if fits else None


def _one(kind: str, result: str) -> Callable[[tuple], Made | None]:
    """Check a call with one argument of a kind."""

    def check(items: tuple) -> Made | None:
        return Made(result) if len(items) == 1 and _is(items[0], kind) else None

    return check


def _size(items: tuple) -> Made | None:
    """`torch.Size((1, 2))`."""
    fits = len(items) == 1 and isinstance(items[0], Row)
    return Made('size') if fits and all(map(_counts, items[0].items)) else None


def _ordered(items: tuple) -> Made | None:
    """`OrderedDict()`, or in files of Python 2 `OrderedDict([[key, value], ...])`."""
    return Made('ordered') if not items else _one('list', 'ordered')(items)


def _nothing(items: tuple) -> Made | None:
    """`bytes()`: how protocol 2 writes b''."""
    return None if items else Made('bytes')


_CALLS: dict[str, Callable[[tuple], Made | None]] = {
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
_NAMES = ('numpy.ndarray', HISTORY)
_STATES: dict[str, Callable[[Value], bool]] = {
    'ordered': lambda state: _is(state, 'dict'),
    'history': lambda state: _is(state, 'dict'),
    'dtype': lambda state: isinstance(state, Row),
    'array': lambda state: isinstance(state, Row),
}
