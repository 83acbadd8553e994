"""Reading of foreign weights: tensors and JSON, never an unpickled object.

A `.bin`, `.pth` or `.ckpt` file is a pickle, which `eomt_mm.checkpoints` reads;
safetensors hold nothing but tensors in the first place.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from eomt_mm import checkpoints
from eomt_mm.errors import UserError, shorten
from eomt_mm.files import is_below

_WANTED = 'give a file of weights, as pytorch_model.bin and model.safetensors are'
# What a folder of the Hugging Face hub may hold, the best first.
HUB_FILES = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin')


def locate(path: str | Path) -> Path:
    """Find the file of weights.

    Args:
        path (str | Path): A file, or a folder as the Hugging Face hub lays it out.

    Returns:
        Path: The file; of a sharded model, its index.

    Raises:
        UserError: If there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        for name in HUB_FILES:
            if (path / name).is_file():
                return path / name
        raise UserError(
            f'{path} is a folder without {" or ".join(HUB_FILES)}: give the file'
        )
    if not path.is_file():
        raise UserError(f'no file {path}: look at the name and the folder')
    return path


def read_checkpoint(path: Path) -> dict:
    """Read a file of weights; large ones stay on disk until they are used.

    Args:
        path (Path): Result of `locate`.

    Returns:
        dict: Content of the file. Safetensors are a flat dict of tensors.

    Raises:
        UserError: If the file is damaged, holds code, or is something else.
    """
    if path.name.endswith('.index.json'):
        return _read_shards(path)
    with open(path, 'rb') as file:
        start = file.read(9)
    if start[8:] == b'{':
        return _read_safetensors(path)
    if start.startswith(b'PK'):
        checkpoints.check_sums(path)
    return checkpoints.read(path, mmap=True)


def tensors_of(content: dict, path: Path) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint: itself, or its `state_dict`.

    Args:
        content (dict): Result of `read_checkpoint`.
        path (Path): Named in errors.

    Returns:
        dict[str, Tensor]: Detached tensors by name.

    Raises:
        UserError: If it is not a dict of tensors, or a value is NaN or infinite.
    """
    state = content.get('state_dict', content)
    if not isinstance(state, dict) or not state:
        raise UserError(f'{path} holds no state dict: {_WANTED}')
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f'{path} is not a dict of tensors: {key!r} is a '
                f'{type(value).__name__}: {_WANTED}'
            )
    refuse_non_finite(state, path)
    return {key: value.detach() for key, value in state.items()}


def refuse_non_finite(tensors: dict[str, Tensor], path: Path) -> None:
    """Raise a UserError that names and counts NaN and infinite values."""
    counts = {}
    for key, value in tensors.items():
        if value.is_floating_point() and not value.is_meta:
            count = value.numel() - int(value.isfinite().sum())
            if count:
                counts[key] = count
    if counts:
        listed = shorten([f'{key} ({count})' for key, count in counts.items()])
        raise UserError(
            f'{path} has {sum(counts.values())} NaN or infinite values in '
            f'{len(counts)} tensors: {listed}. The training that wrote it diverged, '
            'or the file is damaged: take an earlier checkpoint, or download it again'
        )


def refuse_integers(network: dict[str, Tensor]) -> None:
    """Raise a UserError that names a tensor which holds no weights."""
    for key, value in network.items():
        if not value.is_floating_point():
            raise UserError(
                f'{key} is of {value.dtype}, and weights are floating-point numbers: '
                'the file is quantised or not what it is named for. Take the original'
            )


def read_config_beside(path: Path) -> dict:
    """Read the `config.json` beside a file of weights; empty without one.

    Raises:
        UserError: If there is one that cannot be read.
    """
    beside = path.parent / 'config.json'
    if not beside.is_file():
        return {}
    config = _read_json(beside, 'mend it, or remove it')
    return config if isinstance(config, dict) else {}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework='pt') as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f'{path} is cut short or damaged ({error}): download it again'
        ) from error


def _read_shards(index: Path) -> dict[str, Tensor]:
    content = _read_json(index, 'download it again')
    names = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise UserError(
            f'{index} has no weight_map from tensors to files: download it again'
        )
    tensors = {}
    for name in sorted(set(map(str, names.values()))):
        if not is_below(name):
            raise UserError(
                f'{index} names {name!r:.80}, which is outside its folder: '
                'take the index from the publisher'
            )
        shard = index.parent / name
        if not shard.is_file():
            raise UserError(
                f'{index} names {name!r:.80}, which is not beside it: '
                'download that, too'
            )
        tensors |= _read_safetensors(shard)
    return tensors


def _read_json(path: Path, way_out: str) -> object:
    try:
        return json.loads(path.read_bytes())
    # RecursionError: a file of brackets alone nests deeper than Python's stack.
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is no JSON ({error}): {way_out}') from error
