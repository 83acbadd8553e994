"""Segmentation models of Hugging Face transformers, beside those of configs."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from eomt_mm.errors import UserError

from .networks import DEFAULT_SIZE, Complexity, count_network

PREFIX = 'hf::'


def is_one(name: str) -> bool:
    """Whether a word names a model of transformers."""
    return name.startswith(PREFIX)


def build(name: str) -> nn.Module:
    """Build a model for testing; nothing is downloaded.

    Args:
        name (str): 'hf::' and a folder with config.json and weights, or a config file
            (.json) alone, for random weights.

    Returns:
        nn.Module: The model, in evaluation mode and without gradients.

    Raises:
        UserError: If nothing is there, it segments nothing, or the weights are damaged
            or do not fit.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError(f'{name}: transformers is not installed ({error})') from error
    place = Path(name.removeprefix(PREFIX))
    config = _config(place)
    known = transformers.AutoModelForUniversalSegmentation
    if config.__class__ not in known._model_mapping:
        kinds = sorted({kind.model_type for kind in known._model_mapping})
        raise UserError(
            f'{place} is a model of type {config.model_type!r}, expected one that '
            f'segments: {", ".join(kinds)}'
        )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about training
        if place.is_file():
            model = known.from_config(config)
        else:
            model = _with_weights(known, place)
    return model.eval().requires_grad_(False)


def _with_weights(known: type, place: Path) -> nn.Module:
    """Load a folder, and refuse what transformers would fill in at random."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it lists each tensor that does not fit
    try:
        model, found = known.from_pretrained(
            place,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, SafetensorError) as error:
        raise UserError(
            f'the weights in {place} cannot be read: {str(error).splitlines()[0]}; '
            'download them again'
        ) from error
    finally:
        logging.set_verbosity(level)
    names = {name for name, _ in model.named_parameters()}
    wrong = [key for key in found['missing_keys'] if key in names]
    wrong += [key for key, *_ in found['mismatched_keys']]
    if wrong:
        raise UserError(
            f'the weights in {place} do not fit its config.json: {len(wrong)} tensors '
            f'are missing or of another shape, {min(wrong)} among them'
        )
    return model


def _config(place: Path) -> object:
    from transformers import AutoConfig

    if not place.exists():
        raise UserError(
            f'{place}: no such folder or file; models of the hub are downloaded '
            'beforehand, as with hf download NAME --local-dir DIR'
        )
    if place.is_dir() and not any(place.glob('model*.safetensors')):
        raise UserError(
            f'{place} holds no weights (model.safetensors): download them, or give '
            f'{PREFIX}{place / "config.json"} for random ones'
        )
    try:
        return AutoConfig.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f'{place} is not a config of transformers: {str(error).splitlines()[0]}'
        ) from error


def network_alone(model: nn.Module, images: Tensor) -> Callable[[], object]:
    """Make a forward pass; OneFormer also gets a task of 77 tokens.

    Args:
        model (nn.Module): Result of `build`.
        images (Tensor): Shape (B, 3, H, W).
    """
    inputs = dict(pixel_values=images)
    if model.config.model_type == 'oneformer':
        length = model.config.task_seq_len
        inputs['task_inputs'] = torch.zeros(
            len(images), length, dtype=images.dtype, device=images.device
        )
    return lambda: model(**inputs)


def complexity_of(name: str, size: tuple[int, int] | None = None) -> Complexity:
    """Build and count a model, see `networks.complexity_of`."""
    found = count_network(partial(build, name), network_alone, size or DEFAULT_SIZE)
    # Those that only run on values have the same operations for all of them.
    return found._replace(on_noise=False)
