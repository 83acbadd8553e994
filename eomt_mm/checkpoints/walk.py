"""The barrier before unpickling: a pickle's instructions are followed but not run.

A pickle is a program for a small stack machine. `check_program` walks through it with
kinds in place of values: it knows what each instruction would leave on the stack. It
refuses globals, calls and instructions that no checkpoint of MMEngine or PyTorch needs
(`listed_calls` holds those it does need), calls with arguments of another kind, and
tensors that reach beyond their storage. It needs neither torch's reader nor the
stand-ins, so that a fault in one of the three does not open the door.

The instructions are documented in `pickletools` of the standard library.
"""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from .listed_calls import (
    CALLS,
    HISTORY,
    NAMES,
    STATES,
    Global,
    Made,
    Row,
    Value,
    is_count,
    is_made,
)

# Far more than any network's checkpoint has, few enough to be walked in seconds.
MAX_INSTRUCTIONS = 3_000_000
# Hashing a tuple recurses without a limit in CPython.
MAX_TUPLE_DEPTH = 10
# Values and characters that are taken out of the memo. A few instructions could make
# what takes for ever to hash, to copy or to print.
MAX_REPEATED = 10_000_000

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


_MARK = Made('mark')


class Refused(Exception):
    """A pickle asks for more than weights; the text names it."""


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
        known = full in CALLS or full in NAMES
        if not known and not (module == 'torch' and name in STORAGES):
            raise Refused(full)
        self.push(Global(full))

    def call(self, _: None) -> None:
        arguments, function = self._pop(Row), self.stack.pop()
        if not isinstance(function, Global) or function.name not in CALLS:
            raise Refused(f'a call of {_describe(function)}')
        result = CALLS[function.name](arguments.items)
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
        if kind not in STATES or not STATES[kind](state):
            raise Refused(f'a state of {_describe(made)}')

    def load_storage(self, _: None) -> None:
        row = self._pop(Row).items
        # Files of the format before PyTorch 1.6 have a sixth item, for views.
        if row[:1] != ('storage',) or len(row) < 5 or row[5:] not in ((), (None,)):
            raise Refused('an unusual storage')
        _, kind, key, location, count = row[:5]
        itemsize = STORAGES.get(_name_of(kind).removeprefix('torch.'))
        texts = isinstance(key, str) and isinstance(location, str)
        if itemsize is None or not texts or not is_count(count):
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
        if is_made(value, 'list') or is_made(value, 'dict'):
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
    return 1 + value.size if is_made(value, 'bytes') else 1
