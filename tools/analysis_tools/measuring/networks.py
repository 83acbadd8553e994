"""Networks of configs: this repository's, MMSegmentation's and MMDetection's."""

import copy
import difflib
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import nn

from eomt_mm.errors import UserError
from eomt_mm.models.plain_vit import PlainViT

from .operations import ShapesOnly, count_operations, parameters_without_values

# For configs that do not set the size of their network.
DEFAULT_SIZE = (640, 640)


class Complexity(NamedTuple):
    """Cost of a network.

    Attributes:
        size (tuple[int, int]): Height and width of the image in pixels.
        parameters (int): Number of parameters.
        operations (int): Operations for one image, see `count_operations`.
        on_noise (bool): Whether they depend on the image, such as proposals of a
            detector or merged tokens, and were counted on noise with random weights.
    """

    size: tuple[int, int]
    parameters: int
    operations: int
    on_noise: bool


def find_config(name: str) -> str:
    """Find the path of a config.

    Args:
        name (str): A path, or a config of an installed framework such as
            'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'.

    Returns:
        str: The path.

    Raises:
        UserError: If the framework is not installed or has no such config.
    """
    framework, separator, rest = name.partition('::')
    if not separator:
        return name
    spec = find_spec(framework) if framework.isidentifier() else None
    if spec is None:
        raise UserError(f'{name}: {framework} is not installed; known: mmdet, mmseg')
    folder = Path(spec.origin).parent / '.mim' / 'configs'
    path = folder / (rest.removesuffix('.py') + '.py')
    if not path.is_file():
        known = {p.stem: p for p in folder.glob('[!_]*/*.py')}
        similar = difflib.get_close_matches(path.stem, known, n=3)
        names = (f'{framework}::{known[stem].relative_to(folder)}' for stem in similar)
        hint = f'; did you mean {" or ".join(names)}?' if similar else ''
        raise UserError(f'{framework} has no config {rest}{hint}')
    return str(path)


def model_at(
    cfg: Config, size: tuple[int, int] | None = None
) -> tuple[ConfigDict, tuple[int, int]]:
    """Return the model of a config for images of a size.

    Args:
        cfg (Config): The config, unchanged.
        size (tuple[int, int], optional): Height and width of the image. A backbone of
            this package is built for it. Defaults to that of the config, or to
            640 x 640.

    Returns:
        tuple[ConfigDict, tuple[int, int]]: Config of the model, and the size.
    """
    model_cfg = copy.deepcopy(cfg.model)
    size = size or _own_size(model_cfg)
    backbone = model_cfg.get('backbone', {})
    if str(backbone.get('type', '')).startswith('eomt_mm.'):
        backbone.img_size = model_cfg.data_preprocessor.size = size
    return model_cfg, size


def complexity_of(cfg: Config, size: tuple[int, int] | None = None) -> Complexity:
    """Build the network of a config and count it; nothing is downloaded.

    It runs on shapes alone if possible, and on a random image if values decide, as in a
    two-stage detector.

    Args:
        cfg (Config): The config, unchanged.
        size (tuple[int, int], optional): See `model_at`.

    Returns:
        Complexity: Cost for one image, without preprocessing and post-processing.
    """
    model_cfg, size = model_at(cfg, size)
    with scope_of(cfg):
        return count_network(partial(build_network, model_cfg), network_alone, size)


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """Resolve types without a prefix in the config's framework, without warnings."""
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope'))
    with scope, warnings.catch_warnings():
        # They are about training and speed.
        warnings.simplefilter('ignore')
        yield


def count_network(
    build: Callable[[], nn.Module],
    forward: Callable[[nn.Module, torch.Tensor], Callable[[], object]],
    size: tuple[int, int],
) -> Complexity:
    """Count a network on shapes alone if possible, else on a random image.

    Args:
        build (Callable): Makes the network, in evaluation mode and without gradients.
        forward (Callable): Makes its forward pass on images, as `network_alone`.
        size (tuple[int, int]): Height and width of the image.
    """
    on_noise = False
    try:
        with parameters_without_values():
            model = build()
        images = torch.empty(1, channels_of(model), *size, device='meta')
        with ShapesOnly():
            operations = count_operations(forward(model, images), model)
    except Exception:
        # Values were needed, which only a real computation has. Other errors recur.
        on_noise = True
        torch.manual_seed(0)
        model = build()
        images = torch.randn(1, channels_of(model), *size)
        operations = count_operations(forward(model, images), model)
    parameters = sum(p.numel() for p in model.parameters())
    return Complexity(size, parameters, operations, on_noise)


def build_network(model_cfg: dict) -> nn.Module:
    """Build a model for testing, without pre-trained weights or downloads."""
    # Without gradients: the counter follows them otherwise.
    return MODELS.build(model_cfg).eval().requires_grad_(False)


def channels_of(model: nn.Module) -> int:
    """Return the channels of a model's images; three where it does not say."""
    backbone = getattr(model, 'backbone', None)
    return backbone.in_channels if isinstance(backbone, PlainViT) else 3


def network_alone(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """Make a forward pass of the network, without preprocessing and post-processing.

    Args:
        model (nn.Module): Result of `build_network`.
        images (Tensor): Shape (B, 3, H, W).

    Returns:
        Callable: The forward pass, without arguments.
    """
    size = tuple(images.shape[2:])
    shapes = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
    meta = dict.fromkeys(shapes, size) | dict(scale_factor=(1.0, 1.0))
    samples = [BaseDataElement(metainfo=meta) for _ in images]
    # MMSeg's own `_forward` gives its MaskFormer and Mask2Former heads too little.
    head = getattr(model, 'decode_head', None)
    needs_samples = isinstance(head, nn.Module) and (
        'batch_data_samples' in inspect.signature(head.forward).parameters
    )
    if needs_samples:
        return lambda: head(model.extract_feat(images), samples)
    return lambda: model(images, samples, mode='tensor')


def _own_size(model_cfg: dict) -> tuple[int, int]:
    preprocessor = model_cfg.get('data_preprocessor') or {}
    size = (
        model_cfg.get('backbone', {}).get('img_size')
        or preprocessor.get('size')
        or DEFAULT_SIZE
    )
    return (size, size) if isinstance(size, int) else tuple(size)
