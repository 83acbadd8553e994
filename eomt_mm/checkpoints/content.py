"""Checks of a checkpoint before it is tested or resumed."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from eomt_mm.errors import UserError

from .reading import refuse_nan

# No run is longer; MMEngine counts up to the iteration that a checkpoint states.
MAX_COUNT = 10**8


def is_deepspeed_folder(path: str | Path) -> bool:
    """Whether a path is a checkpoint of DeepSpeed, which is a folder."""
    return os.path.isdir(path) and any(Path(path).glob('*_model_states.pt'))


def weights_of(content: Mapping, path: str | Path) -> Mapping[str, Tensor]:
    """Return the state dict of a checkpoint: its `state_dict`, or itself.

    Args:
        content (Mapping): Result of `read`.
        path (str | Path): Named in errors.

    Raises:
        UserError: If there are no weights, or NaN among them.
    """
    state = content.get('state_dict', content)
    if not isinstance(state, Mapping) or not state:
        raise UserError(
            f'{path} holds no weights: its state_dict is '
            f'{"empty" if isinstance(state, Mapping) else f"a {_kind(state)}"}'
        )
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f'{path} is not a dict of tensors: it has a {_kind(value)} under '
                f'{str(key)[:80]!r}. Give a checkpoint of MMEngine, or a state dict'
            )
    refuse_nan(state, path)
    return state


def refuse_odd(content: Mapping, path: str | Path) -> None:
    """Raise a UserError for content that MM's loaders do not expect.

    Args:
        content (Mapping): Result of `read`.
        path (str | Path): Named in errors.
    """
    state, meta = content.get('state_dict', content), content.get('meta', {})
    where = None
    if not isinstance(state, Mapping):
        where = f'state_dict is a {_kind(state)}'
    elif not all(isinstance(key, str) for key in state):
        where = 'names of tensors are not all text'
    elif not isinstance(meta, Mapping):
        where = f'meta is a {_kind(meta)}'
    else:
        data = meta.get('dataset_meta', {})
        if not isinstance(data, Mapping) or not all(isinstance(k, str) for k in data):
            where = 'dataset_meta is not a dict of names'
        for found in () if where else (data, meta):
            found = {key.lower(): value for key, value in _named(found)}
            if not _is_painted(found.get('classes'), found.get('palette')):
                where = 'classes and palette are not names and colours'
    if where:
        raise UserError(
            f'{path} is not a checkpoint of MMEngine: its {where}. Give another file'
        )


def refuse_unresumable(content: Mapping, path: str | Path) -> None:
    """Raise a UserError if no training can continue from a checkpoint.

    Args:
        content (Mapping): Result of `read`.
        path (str | Path): Named in errors.
    """
    if not {'meta', 'optimizer', 'message_hub'} <= content.keys():
        raise UserError(
            f'{path} holds weights only, so that no run can go on from it; to start '
            f'from its weights use --cfg-options load_from={path}'
        )
    meta, hub = content['meta'], content['message_hub']
    where = None
    if not isinstance(meta, Mapping):
        where = f'meta is a {_kind(meta)}'
    elif not all(_counts(meta.get(key)) for key in ('epoch', 'iter')):
        found = [f'{key} {str(meta.get(key))[:20]}' for key in ('epoch', 'iter')]
        where = f'meta has {" and ".join(found)}'
    elif not isinstance(meta.get('seed', 0), (int, type(None))):
        where = f'seed is a {_kind(meta["seed"])}'
    elif not isinstance(hub, Mapping) or not all(
        isinstance(hub.get(key), Mapping)
        for key in ('log_scalars', 'runtime_info', 'resumed_keys')
    ):
        where = 'message_hub is not of MMEngine'
    elif not _is_optimizer(content['optimizer']):
        where = 'optimizer is not of MMEngine'
    elif not isinstance(content.get('param_schedulers', []), (Mapping, Sequence)):
        where = 'param_schedulers is not of MMEngine'
    if where:
        raise UserError(
            f'{path} cannot be resumed: its {where}. Resume from another '
            'checkpoint, or start from its weights with --cfg-options '
            f'load_from={path}'
        )


def refuse_other_optimizer(
    state: Mapping, parameters: Sequence[Sequence[Tensor]], path: str | Path
) -> None:
    """Compare an optimizer's state with its parameters.

    PyTorch loads any shapes, and fails in the first step.

    Args:
        state (Mapping): `state` and `param_groups` of the checkpoint.
        parameters (Sequence[Sequence[Tensor]]): Parameters of each group of the
            optimizer.
        path (str | Path): Named in errors.

    Raises:
        UserError: If numbers of parameters or shapes differ, or a value is not finite.
    """
    groups = [group.get('params', ()) for group in state['param_groups']]
    counts = [len(group) for group in groups], [len(group) for group in parameters]
    way_out = (
        'resume with the config of that run, or start from its weights with '
        f'--cfg-options load_from={path}'
    )
    if counts[0] != counts[1]:
        raise UserError(
            f'the optimizer in {path} has {sum(counts[0])} parameters in '
            f'{len(counts[0])} groups, that of the config {sum(counts[1])} in '
            f'{len(counts[1])}: {way_out}'
        )
    for group, own in zip(groups, parameters, strict=True):
        for index, parameter in zip(group, own, strict=True):
            for name, value in (state['state'].get(index) or {}).items():
                if not isinstance(value, Tensor) or value.ndim == 0:
                    continue  # a step
                if value.shape != parameter.shape:
                    raise UserError(
                        f'{name} of the optimizer in {path} is {tuple(value.shape)} '
                        f'where a parameter is {tuple(parameter.shape)}: {way_out}'
                    )
                if not value.isfinite().all():
                    raise UserError(
                        f'{name} of the optimizer in {path} has NaN or infinite '
                        'values: the run diverged. Resume from an earlier checkpoint'
                    )


def _named(found: Mapping) -> list[tuple[str, object]]:
    return [(key, value) for key, value in found.items() if isinstance(key, str)]


def _is_painted(classes: object, palette: object) -> bool:
    """Whether classes and palette are names and colours in bytes, or absent.

    Fewer colours than names are valid: the other classes have none.
    """
    names = [] if classes is None else classes
    if not isinstance(names, (list, tuple)):
        return False
    if not all(isinstance(name, str) for name in names):
        return False
    if palette is None or (isinstance(palette, str) and palette == 'random'):
        return True
    try:
        # Rows may be lists or arrays, of whole numbers or floats.
        colors = np.array(list(palette), dtype=float).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError):
        return False
    return len(colors) == len(palette) and bool(((colors >= 0) & (colors < 256)).all())


def _is_optimizer(state: object) -> bool:
    if not isinstance(state, Mapping) or not state:
        return False
    if 'param_groups' not in state:  # several optimizers by name
        return all(map(_is_optimizer, state.values()))
    groups = state['param_groups']
    return isinstance(state.get('state'), Mapping) and (
        isinstance(groups, list)
        and all(isinstance(group, Mapping) for group in groups)
        and all(isinstance(group.get('params'), list) for group in groups)
        and all(isinstance(item, Mapping) for item in state['state'].values())
    )


def _counts(value: object) -> bool:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    return is_int and 0 <= value <= MAX_COUNT


def _kind(value: object) -> str:
    return type(value).__name__
