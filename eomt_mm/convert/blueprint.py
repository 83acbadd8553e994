"""The model of a config without its weights, which a file has to fit."""

from dataclasses import dataclass

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from eomt_mm.cli import config_reading as reading
from eomt_mm.errors import UserError, shorten
from eomt_mm.registry import MODELS, has_mmdet


@dataclass(frozen=True)
class Blueprint:
    """A model on the meta device, with the metadata of its dataset.

    Attributes:
        name (str): Name of the config, for errors.
        cfg (Config): The config.
        model (nn.Module): The model, without memory.
        head (str): Name of its head, such as 'decode_head'.
        dataset_meta (dict): Classes and colours, in builtin types.
    """

    name: str
    cfg: Config
    model: nn.Module
    head: str
    dataset_meta: dict

    def to_state_dict(self, network: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename a network to the names of this model.

        Args:
            network (dict[str, Tensor]): The names of `layouts.py`.

        Returns:
            dict[str, Tensor]: Tensors in the order of the model.

        Raises:
            UserError: If a tensor is missing, surplus or of another shape.
        """
        given = {
            f'{self.head}.{key.removeprefix("head.")}' if is_head(key) else key: value
            for key, value in network.items()
        }
        wanted = self.model.state_dict()
        missing = [key for key in wanted if key not in given]
        surplus = [key for key in given if key not in wanted]
        misshapen = [
            f'{key} is {tuple(given[key].shape)} and not {tuple(value.shape)}'
            for key, value in wanted.items()
            if key in given and given[key].shape != value.shape
        ]
        found = [
            f'{what} {shorten(keys)}'
            for what, keys in (
                ('it lacks', missing),
                ('it has, unlike the config,', surplus),
                ('', misshapen),
            )
            if keys
        ]
        if found:
            raise UserError(
                f'the file does not fit {self.name}: {"; ".join(found).strip()}. '
                'Give the config of this network with --config, or a whole file'
            )
        return {key: given[key] for key in wanted}

    def to_network(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Reverse `to_state_dict`, with the same checks."""
        prefix = f'{self.head}.'
        network = {
            f'head.{key.removeprefix(prefix)}' if key.startswith(prefix) else key: value
            for key, value in state_dict.items()
        }
        self.to_state_dict(network)
        return network


def is_ade20k_panoptic(dataset_meta: dict) -> bool:
    """Whether the classes are ADE20K's in MMDetection's order, things first.

    Args:
        dataset_meta (dict): Metadata of a dataset, or of a checkpoint's dataset.
    """
    if 'thing_classes' not in dataset_meta:
        return False
    from mmdet.datasets import ADE20KPanopticDataset

    things_first = ADE20KPanopticDataset.METAINFO['classes']
    return tuple(dataset_meta.get('classes', ())) == tuple(things_first)


def is_head(key: str) -> bool:
    """Whether a tensor belongs to the head."""
    return key.startswith('head.')


def blueprint(cfg: Config, name: str) -> Blueprint:
    """Build the model of a config on the meta device.

    Args:
        cfg (Config): Config of a segmentor or detector with a `QueryViT`.
        name (str): Name of the config, for errors.

    Returns:
        Blueprint: The model.

    Raises:
        UserError: If the config makes another kind of model.
    """
    if not cfg.get('model'):
        raise UserError(f'{name} has no model: give a config such as configs/eomt/*')
    if cfg.get('default_scope') == 'mmdet' and not has_mmdet():
        raise UserError(
            f'{name} needs MMDetection and the compiled operators of mmcv: '
            'pip install mmdet'
        )
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        with torch.device('meta'):
            model = registry.build(cfg.model)
    keys = model.state_dict().keys()
    heads = [k.removesuffix('.class_head.weight') for k in keys if '.class_head.w' in k]
    if 'backbone.queries' not in keys or len(heads) != 1:
        raise UserError(
            f'{name} makes a {type(model).__name__} without the queries and the mask '
            'head of EoMT: give a config such as those of configs/eomt'
        )
    meta = _dataset_meta(cfg)
    classes = len(meta.get('classes', ()))
    rows = len(model.get_submodule(heads[0]).class_head.weight)
    if classes and classes + 1 != rows:
        raise UserError(
            f'{name} disagrees with itself: {classes} classes in its test dataset, '
            f'{rows - 1} in its head'
        )
    return Blueprint(name, cfg, model, heads[0], meta)


def _dataset_meta(cfg: Config) -> dict:
    """Read the metadata that MMEngine stores of the test dataset off its class."""
    for dataset in reading.leaves_of(cfg, 'test'):
        return _builtin(reading.metainfo_of(dataset, reading.scope_of(cfg)))
    return {}


def _builtin(value: object) -> object:
    """Convert a value to types that can be read from a file without unpickling."""
    if isinstance(value, dict):
        return {key: _builtin(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_builtin(child) for child in value)
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
