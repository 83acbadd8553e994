"""Hostile checkpoints: pickles put together instruction by instruction, odd archives.

Whatever runs creates the file `canary`.
"""

import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

HISTORY = 'mmengine.logging.history_buffer HistoryBuffer'
NDARRAY, DTYPE = 'numpy ndarray', 'numpy dtype'
RECONSTRUCT = 'numpy._core.multiarray _reconstruct'
SCALAR = 'numpy._core.multiarray scalar'
# What a pickle might call to run something, in the spelling of protocol 2.
RUNNERS = (
    'os system',
    'posix system',
    'subprocess Popen',
    '__builtin__ eval',
    '__builtin__ exec',
    '__builtin__ __import__',
    '__builtin__ open',
    '__builtin__ getattr',
    'builtins eval',
    'importlib import_module',
    'runpy run_path',
    'torch.hub load',
    'torch.load load',
    'torch.jit load',
    'torch.serialization load',
    'torch.utils.cpp_extension load_inline',
    'numpy load',
    'numpy.testing._private.utils runstring',
    'pickle loads',
    '_pickle loads',
    'operator attrgetter',
    'operator methodcaller',
    'functools partial',
    'types FunctionType',
    'marshal loads',
    'ctypes CDLL',
    'webbrowser open',
    'shutil rmtree',
    'pathlib Path.write_text',
    'mmengine.config Config.fromstring',
    'mmengine.registry.registry Registry.build',
    'mmengine.utils.misc import_modules_from_strings',
    'eomt_mm.checkpoints.reading read',
    'eomt_mm.checkpoints.stand_ins Array',
)
# Callables of torch's own list, which weights_only would let through.
TORCH = (
    'torch._utils _rebuild_tensor',
    'torch._utils _rebuild_tensor_v2',
    'torch._utils _rebuild_tensor_v3',
    'torch._utils _rebuild_parameter',
    'torch._utils _rebuild_parameter_with_state',
    'torch._utils _rebuild_qtensor',
    'torch._utils _rebuild_sparse_tensor',
    'torch._utils _rebuild_meta_tensor_no_storage',
    'torch._utils _rebuild_nested_tensor',
    'torch._utils _rebuild_wrapper_subclass',
    'torch._utils _rebuild_device_tensor_from_numpy',
    'torch._utils _rebuild_device_tensor_from_cpu_tensor',
    'torch._tensor _rebuild_from_type_v2',
    'torch.storage UntypedStorage',
    'torch.storage TypedStorage',
    'torch FloatStorage',
    'torch Tensor',
    'torch.nn.parameter Parameter',
    'torch device',
    'torch Size',
    'torch.serialization _get_layout',
    '__builtin__ bytearray',
    '__builtin__ complex',
    '__builtin__ set',
    'collections OrderedDict',
    'collections Counter',
    '_codecs encode',
    NDARRAY,
    DTYPE,
    RECONSTRUCT,
    SCALAR,
    HISTORY,
    'mmengine.config.config ConfigDict',
)


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def raw(value: bytes) -> bytes:
    """Bytes as protocol 2 has them: a call of `_codecs.encode`."""
    return call('_codecs encode', text(value.decode('latin1')), text('latin1'))


def number(value: int) -> bytes:
    """BININT, or LONG1 where that is too small."""
    if -(2**31) <= value < 2**31:
        return b'J' + struct.pack('<i', value)
    data = value.to_bytes((value.bit_length() + 8) // 8, 'little', signed=True)
    return b'\x8a' + bytes([len(data)]) + data


def named(name: str) -> bytes:
    """GLOBAL."""
    module, _, attribute = name.partition(' ')
    return f'c{module}\n{attribute}\n'.encode()


def items(*values: bytes) -> bytes:
    """A tuple."""
    return b'(' + b''.join(values) + b't'


def call(name: str, *values: bytes) -> bytes:
    """REDUCE."""
    return named(name) + items(*values) + b'R'


def new(name: str, *values: bytes) -> bytes:
    """NEWOBJ."""
    return named(name) + items(*values) + b'\x81'


def storage(kind='FloatStorage', key='0', count=4, location='cpu') -> bytes:
    """BINPERSID of a storage."""
    parts = (text('storage'), named(f'torch {kind}'), text(key), text(location))
    return items(*parts, number(count)) + b'Q'


def tensor(part: bytes, offset: int, size: tuple, stride: tuple, last=None) -> bytes:
    """`_rebuild_tensor_v2`."""
    hooks = last or call('collections OrderedDict')
    sides, steps = (items(*map(number, sides)) for sides in (size, stride))
    return call(
        'torch._utils _rebuild_tensor_v2',
        part,
        number(offset),
        sides,
        steps,
        b'\x89',
        hooks,
    )


def values(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Values that ask for something, as instructions, by family."""
    run = f'touch {canary}'
    code = f'open({str(canary)!r}, "w")'
    for name in RUNNERS:
        argument = code if 'eval' in name or 'exec' in name else run
        yield 'runner by REDUCE', call(name, text(argument))
        yield 'runner by NEWOBJ', new(name, text(argument))
        module, _, attribute = name.partition(' ')
        yield (
            'runner by STACK_GLOBAL',
            text(module) + text(attribute) + b'\x93' + items(text(argument)) + b'R',
        )
        yield 'runner by INST', b'(' + text(run) + f'i{module}\n{attribute}\n'.encode()
        yield 'runner by OBJ', b'(' + named(name) + text(argument) + b'o'
        yield 'runner as a state', call('collections OrderedDict') + named(name) + b'b'
    odd = (
        items(),
        items(number(10**12)),
        items(number(-1)),
        items(text(run)),
        items(items(number(1)), text('O'), raw(b'\1' * 8)),
        items(b']', b'}', b'N'),
        items(storage(), number(0), items(number(2**62)), items(number(0))),
        items(named('torch Tensor'), named('os system'), items(text(run)), b'}'),
    )
    for name in TORCH:
        for arguments in odd:
            yield 'listed, odd arguments', named(name) + arguments + b'R'
            yield 'listed, as a new object', named(name) + arguments + b'\x81'
    empty = call(RECONSTRUCT, named(NDARRAY), items(number(0)), raw(b'b'))
    kinds = ('O', 'O8', 'V8', 'U4', 'S4', 'M8', 'm8', 'f16', 'c8', 'i8,O', 'f8', '>f8')
    for kind in kinds:
        dtype = call(DTYPE, text(kind), b'\x89', b'\x88')
        state = items(number(1), items(number(1)), dtype, b'\x89', raw(b'\1' * 8))
        yield 'array with a forged state', empty + state + b'b'
        yield 'scalar', call(SCALAR, dtype, raw(b'\1' * 7))
        fields = items(text('a')), items(text('a'), items(dtype, number(0)))
        forged = items(number(3), text('|'), b'N', *fields, number(-1), number(-1))
        yield 'dtype with a forged state', dtype + forged + b'b'
    plain = call(DTYPE, text('f8'), b'\x89', b'\x88')
    for shape in ((2**61,), (-1,), (2**31, 2**31), (1,) * 64, (0, 2**62)):
        sides = items(*map(number, shape))
        state = items(number(1), sides, plain, b'\x89', raw(b'\1' * 8))
        yield 'array of an odd shape', empty + state + b'b'
    history = new(HISTORY)
    for name in ('__init__', '__class__', '__subclasses__', '__globals__', 'update'):
        yield 'getattr', call('__builtin__ getattr', named(HISTORY), text(name))
        yield 'getattr', call('__builtin__ getattr', history, text(name))
    for state in (
        b'}',
        b'N',
        b'}' + text('statistics_methods') + b'}' + text('mean') + b'NssN\x86',
        b'}' + text('_log_history') + named(NDARRAY) + b's',
        b'}' + text('__class__') + named(NDARRAY) + b's',
        items(b'}', b'}' + text('max_length') + b'Ns'),
    ):
        yield 'history with a forged state', history + state + b'b'
        made = call('collections OrderedDict')
        yield 'OrderedDict with a forged state', made + state + b'b'
    yield (
        'OrderedDict with a forged state',
        call('collections OrderedDict') + b'}' + text('items') + named(NDARRAY) + b'sb',
    )
    for codec in ('zip', 'bz2', 'idna', 'rot13', 'unicode_escape', 'undefined', '../x'):
        yield 'codec', call('_codecs encode', text('a' * 50_000), text(codec))
    for kind in ('FloatStorage', 'DoubleStorage', 'UntypedStorage', 'QInt8Storage'):
        for count in (5, 2**40, -1, 10**30, 0):
            yield (
                'storage of another size',
                tensor(storage(kind, count=count), 0, (4,), (1,)),
            )
    for offset, size, stride in (
        (0, (2**40,), (0,)),
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (-1, (1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (2**62,)),
        (0, (2, 2), (1,)),
        (0, (1,) * 100, (1,) * 100),
        (2**62, (1,), (1,)),
    ):
        yield 'tensor beyond its storage', tensor(storage(), offset, size, stride)
    yield 'state of a tensor', tensor(storage(), 0, (4,), (1,)) + items(b'N') + b'b'
    for location in ('xla', 'hpu:0', 'meta', '../x'):
        yield 'location', tensor(storage(location=location), 0, (4,), (1,))
    for key in ('1', '../0', '/etc/passwd', 'data.pkl'):
        yield 'storage that is not there', tensor(storage(key=key), 0, (4,), (1,))
    yield 'deep tuple', b')' + b'\x85' * 200_000
    yield 'deep list', b']' * 200_000 + b'a' * 199_999
    yield 'cycle', b']q\1h\1a'
    yield 'cycle', b']q\1' + b'h\1' * 2 + b'aa'
    laughs = b']q\0' + b''.join(
        b'](h' + bytes([i]) + b'h' + bytes([i]) + b'eq' + bytes([i + 1])
        for i in range(60)
    )
    yield 'billion laughs', laughs
    yield 'deep key', b'}' + b')' + b'\x85' * 50_000 + b'Ns'
    for code in (b'\x82\1', b'\x83\1\0', b'\x84\1\0\0\0'):
        yield 'extension', code + b')R'
    yield 'text persistent id', b'Pos.system\n'
    yield 'odd persistent id', items(text('module'), b'N', b'N', b'N') + b'Q'
    yield 'NEWOBJ_EX', named('os system') + items(text(run)) + b'}\x92'
    yield 'huge number', b'\x8b' + struct.pack('<i', 2**20) + b'\1' * 2**20
    yield 'text number', b'I' + b'9' * 100_000 + b'\n'
    yield 'empty stack', b'0' * 3
    yield 'unknown instruction', b'\xff'
    yield 'memo', b'h\5'
    yield 'memo', b'j\xff\xff\xff\xff'


def program(value: bytes) -> bytes:
    """A pickle of a dict with a weight and a value."""
    weight = text('weight') + tensor(storage(), 0, (4,), (1,))
    return b'\x80\x02}(' + weight + text('value') + value + b'u.'


def archive(pickled: bytes, compress=zipfile.ZIP_STORED, also=()) -> bytes:
    """A file laid out as by `torch.save`, with four floats."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', compress) as target:
        for name, data in (
            ('file/data.pkl', pickled),
            ('file/byteorder', b'little'),
            ('file/data/0', bytes(16)),
            ('file/version', b'3\n'),
            *also,
        ):
            # A fixed date: files are the same at each call.
            target.writestr(zipfile.ZipInfo(name), data, compress)
    return file.getvalue()


def before_1_6(pickled: bytes) -> bytes:
    """The format of pickles one after the other."""
    magic = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
    version, system = (pickle.dumps(part, protocol=2) for part in (1001, {}))
    keys = pickle.dumps(['0'], protocol=2)
    return magic + version + system + pickled + keys + struct.pack('<q', 4) + bytes(16)


def files(canary: Path, seed: int = 0) -> list[tuple[str, bytes]]:
    """All hostile files, as (family, content), in an order that the seed decides."""
    found = []
    for family, value in values(canary):
        found.append((family, archive(program(value))))
        found.append((f'{family}, before 1.6', before_1_6(program(value))))
    attack = program(call('os system', text(f'touch {canary}')))
    good = program(b'N')
    found += [
        ('two data.pkl', archive(good, also=[('file/data.pkl', attack)])),
        ('two data.pkl', archive(attack, also=[('file/data.pkl', good)])),
        ('two folders', archive(good, also=[('other/data.pkl', attack)])),
        ('two folders', archive(good, also=[('data.pkl', attack)])),
        ('compressed', archive(good, zipfile.ZIP_DEFLATED)),
        (
            'compressed bomb',
            archive(program(text('a' * 10**7)), zipfile.ZIP_DEFLATED),
        ),
        ('TorchScript', archive(good, also=[('file/constants.pkl', attack)])),
        ('nested archive', archive(archive(attack))),
        ('odd byte order', archive(good, also=[('file/.format_version', b'\xff')])),
        ('plain pickle', attack),
        ('plain pickle', pickle.dumps({'a': [1, 2]})),
        ('plain pickle', pickle.dumps(torch.Size([1]), protocol=5)),
        ('text pickle', b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."),
        ('NumPy', b'\x93NUMPY\x01\x00' + attack),
    ]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode='w') as target:
        for name in ('storages', 'tensors', 'pickle'):
            info = tarfile.TarInfo(name)
            info.size = len(attack)
            target.addfile(info, io.BytesIO(attack))
    found.append(('tar', tar.getvalue()))
    swapped = archive(good)
    found.append(
        ('local header', swapped.replace(b'file/data.pkl', b'file/datb.pkl', 1))
    )
    for content in contents():
        file = io.BytesIO()
        torch.save(content, file)
        found.append(('content', file.getvalue()))
    header = json.dumps({'a': {'dtype': 'F32', 'shape': [9], 'data_offsets': [0, 4]}})
    found.append(('safetensors', struct.pack('<Q', len(header)) + header.encode()))
    found.append(('safetensors', struct.pack('<Q', 2**60) + b'{"a":'))
    random.Random(seed).shuffle(found)
    return found


def contents() -> Iterator[object]:
    """Whole files of the wrong content."""
    ones = torch.ones(2)
    yield from (
        [ones],
        ones,
        None,
        'text',
        {},
        {'state_dict': None},
        {'state_dict': {}},
    )
    yield from ({1: ones}, {'a': 'b'}, {'state_dict': [ones]}, {'state_dict': {'a': 1}})
    yield {'state_dict': {'a': torch.tensor([float('nan')])}}
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    whole = dict(
        meta=dict(iter=1, epoch=0),
        state_dict=dict(a=ones),
        optimizer=dict(state={}, param_groups=[]),
        message_hub=hub,
        param_schedulers=[],
    )
    for change in (
        dict(meta=None),
        dict(meta=[]),
        dict(meta={}),
        dict(meta=dict(iter=-5, epoch=0)),
        dict(meta=dict(iter=10**9, epoch=0)),
        dict(meta=dict(iter=1.5, epoch=0)),
        dict(meta=dict(iter='1', epoch=0)),
        dict(meta=dict(iter=1, epoch=0, seed='x')),
        dict(meta=dict(iter=1, epoch=0, cfg='import os', config='import os')),
        dict(meta=dict(iter=1, epoch=0, cfg='(' * 200_000, config='-' * 200_000)),
        dict(optimizer=None),
        dict(optimizer=[]),
        dict(optimizer=dict(state={0: 1}, param_groups=[])),
        dict(optimizer=dict(state={}, param_groups=[1])),
        dict(message_hub=None),
        dict(message_hub=dict(log_scalars=1)),
        dict(param_schedulers=3),
    ):
        yield {**whole, **change}


def hub_folders() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Folders of a model hub that contradict themselves, as (family, files)."""
    index, config = 'model.safetensors.index.json', 'config.json'
    for number, text in enumerate(
        (
            b'',
            b'[]',
            b'null',
            b'"text"',
            b'{}',
            b'{"weight_map": []}',
            b'{"weight_map": null}',
            b'{"weight_map": {}}',
            b'{"weight_map": {"a": 1}}',
            b'{"weight_map": {"a": null}}',
            b'{"weight_map": {"a": ["b"]}}',
            b'{"weight_map": {"a": {"b": 1}}}',
            b'{"weight_map": {"a": ""}}',
            b'{"weight_map": {"a": "."}}',
            b'{"weight_map": {"a": "../hub/config.json"}}',
            b'{"weight_map": {"a": "/etc/passwd"}}',
            b'{"weight_map": {"a": "C:\\\\x"}}',
            b'{"weight_map": {"a": "gone.safetensors"}}',
            b'{"weight_map": {"a": "a\\u0000b"}}',
            b'{"weight_map": {"a": "%s"}}' % (b'x' * 5000),
            b'[' * 200_000,
            b'{"a":' * 200_000,
            b'\xff\xfe\x00',
            b'\x80\x81',
            b'{"weight_map": {"a": "model.safetensors.index.json"}}',
            b'NaN',
            b'1' * 5000,
        )
    ):
        yield f'index {number}', {index: text, config: b'{}'}
    header = json.dumps({'a': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}})
    weights = struct.pack('<Q', len(header)) + header.encode() + bytes(4)
    for number, text in enumerate(
        (b'[' * 200_000, b'\xff\xfe', b'{', b'1' * 5000, b'[]', b'{"id2label": 3}')
    ):
        yield f'config {number}', {'model.safetensors': weights, config: text}
    for number, data in enumerate((b'', weights[:-1], b'\0' * 40, weights + b'x')):
        yield f'weights {number}', {'model.safetensors': data, config: b'{}'}
        shards = b'{"weight_map": {"a": "part"}}'
        yield f'part {number}', {index: shards, 'part': data, config: b'{}'}
    attack = pickle.dumps(Runner(), protocol=2)
    for number, data in enumerate((attack, archive(attack), before_1_6(attack))):
        yield f'pickle {number}', {'pytorch_model.bin': data}


class Runner:
    """A pickle of it would raise if it were run."""

    def __reduce__(self):
        return exec, ('raise SystemExit(99)',)
