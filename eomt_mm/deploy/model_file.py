"""What an ONNX file says of itself, read before any runtime opens it.

The file is a protocol buffer; its few fields of interest are walked here, weights are
passed over. A model may keep weights in files of their own: a hostile one names files
anywhere on the machine. The numbers of the fields are those of onnx.proto.
"""

import json
import mmap
from collections.abc import Iterator
from pathlib import Path

from eomt_mm.errors import UserError
from eomt_mm.files import is_below, refuse_special

KEY = 'eomt_mm'  # of the metadata, a JSON text
FORMAT = 1
RESIZES = (set(), {'rows', 'cols'}, {'short_side', 'max_aspect'})
LONGEST = 2**13  # of sides, in pixels: what is larger fills the memory
HIGHEST = 2**16  # of other numbers
TASKS = ('semantic', 'panoptic', 'instance')
# Messages that lead to tensors: their fields, and the kind of message each holds.
_LEADS = {
    'model': {7: 'graph', 20: 'training', 25: 'function'},
    'training': {1: 'graph', 2: 'graph'},
    'graph': {1: 'node', 5: 'tensor', 15: 'sparse'},
    'function': {7: 'node', 11: 'attribute'},
    'node': {5: 'attribute'},
    'attribute': {
        **{5: 'tensor', 10: 'tensor', 6: 'graph', 11: 'graph'},
        **{22: 'sparse', 23: 'sparse'},
    },
    'sparse': {1: 'tensor', 2: 'tensor'},
    'tensor': {13: 'entry'},
}
_METADATA = 14  # of the model
_DEEPEST = 100  # messages in messages, as protobuf allows


def read_meta(path: str | Path) -> dict:
    """Read what the export has written about the model, once the file proves harmless.

    Args:
        path (str | Path): An ONNX file.

    Returns:
        dict: `task`, `classes`, `palette`, `size` and more, see `docs/deployment.md`.

    Raises:
        UserError: The file cannot be read, is not an export of this package, or refers
            to weights outside of its folder. It is a pipe or a device.
    """
    path = Path(path)
    refuse_special(path)
    try:
        with path.open('rb') as file:
            # Unmapped with its last view: an error on the way out still holds some.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            found = list(_entries(memoryview(data), 'model'))
    except OSError as error:
        raise UserError(
            f'{path} cannot be read ({error.strerror}): give a file of '
            'tools/deployment/export.py'
        ) from error
    except ValueError as error:  # an empty file, too
        raise UserError(f'{path} is no ONNX file ({error})') from error
    for kind, key, value in found:
        if kind == 'tensor' and key == 'location':
            _check_location(path, value)
    texts = [value for kind, key, value in found if kind == 'model' and key == KEY]
    if not texts:
        raise UserError(
            f'{path} is not an EoMT export: it has no metadata {KEY!r}, which '
            'tools/deployment/export.py writes'
        )
    return _parsed(texts[-1], path)


def _check_location(path: Path, location: str) -> None:
    folder = path.resolve().parent
    target = (folder / location).resolve() if is_below(location) else folder
    if target == folder or not target.is_relative_to(folder):
        raise UserError(
            f'{path} refers to weights in {location!r}, which is not in its folder: '
            'it may be hostile, take a file from a source you trust'
        )
    if not target.is_file():
        raise UserError(
            f'{path} has its weights in {location!r}, which is not beside it: move '
            'both files together'
        )


def _parsed(text: str, path: Path) -> dict:
    """Parse the metadata, which has all that the predictor relies on."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        meta = None
    if not is_sound(meta):
        raise UserError(
            f'{path} has metadata {KEY!r} of another version, or damaged: export the '
            'model again with tools/deployment/export.py of this version'
        )
    return meta


def is_sound(meta: object) -> bool:
    """Whether metadata have all that the predictor relies on, within its bounds."""
    try:
        resize, test, size = meta['resize'] or {}, meta['test'], meta['size']
        # The longest side is a multiple of the short one, and no number of pixels.
        aspect = resize.get('max_aspect', 1)
        sides = [*size, *(resize[key] for key in resize if key != 'max_aspect')]
        return (
            meta['format'] == FORMAT
            and meta['task'] in TASKS
            and isinstance(meta['upright'], bool)
            and isinstance(meta['classes'], list)
            and all(isinstance(name, str) for name in meta['classes'])
            and len(meta['palette']) == len(meta['classes']) > 0
            and all(0 <= c < 256 for colour in meta['palette'] for c in colour)
            and {len(colour) for colour in meta['palette']} == {3}
            and isinstance(meta['num_things'], int)
            and 0 <= meta['num_things'] <= len(meta['classes'])
            and len(size) == 2
            and all(isinstance(side, int) and 0 < side <= LONGEST for side in sides)
            and 1 <= aspect < HIGHEST
            and set(resize) in RESIZES
            and set(test) == {'score_thr', 'overlap_thr', 'max_per_image'}
            and all(0 <= number < HIGHEST for number in test.values())
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def _entries(
    message: memoryview, kind: str, depth: int = 0
) -> Iterator[tuple[str, str, str]]:
    """Read the key-value texts in a message: of the model, and of tensors inside it."""
    if depth > _DEEPEST:
        raise ValueError('nested too deeply')
    for number, value in _fields(message):
        if kind == 'model' and number == _METADATA:
            yield 'model', *_entry(value)
        elif (inner := _LEADS[kind].get(number)) == 'entry':
            yield 'tensor', *_entry(value)
        elif inner:
            yield from _entries(value, inner, depth + 1)


def _entry(message: memoryview) -> tuple[str, str]:
    """Read a key and its value, texts both."""
    parts = {number: str(value, 'utf-8') for number, value in _fields(message)}
    return parts.get(1, ''), parts.get(2, '')


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield numbers and contents of the fields that have a length; skip others."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        if tag >= 2**32:  # parsers drop the bits above, and would see another field
            raise ValueError('no protocol buffer')
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _, place = _varint(message, place)
            continue
        if wire not in (1, 2, 5):
            raise ValueError('no protocol buffer')
        length = {1: 8, 5: 4}.get(wire)
        if length is None:
            length, place = _varint(message, place)
        if place + length > len(message):
            raise ValueError('cut off')
        if wire == 2:
            yield number, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError('cut off')
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError('no protocol buffer')
