"""The two conversions, from a file to a file.

Tensors of the network go into the state dict. Other tensors of the file are kept beside
it as `unused`, so that the file can be restored whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from eomt_mm.checkpoints import config_of
from eomt_mm.errors import UserError
from eomt_mm.version import __version__

from . import hugging_face as hf
from .blueprint import Blueprint, blueprint, is_ade20k_panoptic
from .class_names import label_config, refuse_other_classes
from .delta import add_base, is_delta, read_base
from .inventory import Inventory, take_inventory
from .layouts import OFFICIAL_DINOV3, recognise
from .reading import read_checkpoint, read_config_beside, refuse_integers, tensors_of
from .stored_config import stored_config
from .writing import refuse_occupied, whole_file


@dataclass(frozen=True)
class Source:
    """A network from a file, under the names of `layouts.py`.

    Attributes:
        path (Path): The file.
        layout (str): Name of its layout.
        network (dict[str, Tensor]): `backbone.*` and `head.*`.
        unused (dict[str, Tensor], optional): Tensors outside the network. None for a
            delta, where these are differences instead of values.
        beside (dict): The `config.json` beside the file.
        inventory (Inventory): Its numbers.
    """

    path: Path
    layout: str
    network: dict[str, Tensor]
    unused: dict[str, Tensor] | None
    beside: dict
    inventory: Inventory

    def rows(self) -> list[tuple[str, str]]:
        """Return the summary for the user, as label and text."""
        probs = (self.unused or {}).get('attn_mask_probs')
        rows = [('layout', self.layout), *self.inventory.rows()]
        if probs is not None and bool(probs.any()):
            listed = ', '.join(f'{prob:.3g}' for prob in probs.tolist())
            rows.append(
                ('masks', f'training had not ended (probabilities {listed}): left out')
            )
        return rows


def read_source(path: Path, base: Path | None = None) -> Source:
    """Read a published checkpoint.

    Args:
        path (Path): The file, official or Hugging Face's.
        base (Path, optional): The pre-trained DINOv3, if the file is a delta.

    Returns:
        Source: The whole network.

    Raises:
        UserError: If the file is damaged, is not an EoMT, or is a delta without base.
    """
    tensors, beside = tensors_of(read_checkpoint(path), path), read_config_beside(path)
    try:
        layout = recognise(list(tensors))
        network, unused = layout.to_package_names(tensors)
        refuse_integers(network)
        inventory = take_inventory(network, unused, beside)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    name = layout.name
    if layout is OFFICIAL_DINOV3 and is_delta(network):
        network, unused, name = _whole(network, path, base), None, f'{name}, delta'
    elif base:
        raise UserError(
            f'{path} holds a whole network and no difference to a pre-trained one: '
            'adding --base would count the backbone twice. Leave --base out'
        )
    return Source(path, name, network, unused, beside, inventory)


def _whole(
    network: dict[str, Tensor], path: Path, base: Path | None
) -> dict[str, Tensor]:
    if base is None:
        raise UserError(
            f'{path} is a delta file: its backbone is the difference to the '
            'pre-trained DINOv3 (the weights of its norms are not around 1, but around '
            '0 or below), and used as a network it gives NaN. Add --base '
            'model.safetensors of https://huggingface.co/facebook/dinov3-vit{s,b,l}16-'
            'pretrain-lvd1689m'
        )
    return add_base(network, read_base(base), base)


def to_package(source: Source, cfg: Config, name: str, path: Path) -> Blueprint:
    """Write a checkpoint of this package.

    Args:
        source (Source): Result of `read_source`.
        cfg (Config): Config for testing it.
        name (str): Name of the config, for errors and for the checkpoint's metadata.
        path (Path): The file to write.

    Returns:
        Blueprint: The model it fits.

    Raises:
        UserError: If the network does not fit the config, or the file cannot be
            written. Nothing is left.
    """
    plan = blueprint(cfg, name)
    blocks, wanted = source.inventory.num_blocks, plan.model.backbone.num_blocks
    if blocks not in (None, wanted):
        raise UserError(
            f'{source.path} was trained with queries in the last {blocks} blocks, '
            f'{name} has num_blocks={wanted}: give a config with num_blocks={blocks} '
            'with --config'
        )
    network = source.network
    if is_ade20k_panoptic(plan.dataset_meta):
        network = _reorder_classes(network, _things_first)
    state_dict = plan.to_state_dict(network)
    _refuse_other_images(source, plan)
    if _is_of_transformers(source):
        _, config = hf.model_config(plan.model, plan.head)
        hf.refuse_other_function(source.beside, config, source.path)
        _compare_classes(source, plan)
    side, height = source.inventory.img_size, plan.model.backbone.img_size[0]
    if side not in (None, height):
        print_log(
            f'note: {name} takes {height} x {height} pixels, the file was made for '
            f'{side} x {side}: rotary codes fit any size, the score may not'
        )
    meta = dict(
        dataset_meta=plan.dataset_meta,
        cfg=cfg.pretty_text,
        converted_from=dict(file=source.path.name, layout=source.layout, config=name),
        eomt_mm_version=__version__,
    )
    checkpoint = dict(meta=meta, state_dict=state_dict)
    if source.unused is not None:
        checkpoint['unused'] = source.unused
    # PyTorch names the archive after a path, and cannot do so for every name.
    with whole_file(path) as partial, open(partial, 'wb') as file:
        torch.save(checkpoint, file)
    return plan


def to_transformers(path: Path, folder: Path, cfg: Config | None = None) -> dict:
    """Write a folder that `transformers` loads.

    Args:
        path (Path): A checkpoint of this package, trained or converted.
        folder (Path): The folder to write; must not exist, or be empty.
        cfg (Config, optional): The config; None takes the one in the checkpoint.

    Returns:
        dict: The `config.json`.

    Raises:
        UserError: If `transformers` has no such EoMT. Nothing is written.
    """
    refuse_occupied(folder)
    checkpoint = read_checkpoint(path)
    state_dict, meta = tensors_of(checkpoint, path), checkpoint.get('meta') or {}
    if 'backbone.queries' not in state_dict:
        raise UserError(
            f'{path} is not a checkpoint of this package: it lacks backbone.queries'
        )
    if cfg is None:
        text = config_of(checkpoint)
        if text is None:
            raise UserError(f'{path} carries no config: add --config')
        cfg = stored_config(text)
    try:
        plan = blueprint(cfg, f'the config of {path}')
    except UserError:
        raise
    except Exception as error:  # MM and timm raise any kind for a wrong argument
        raise UserError(
            f'the config of {path} makes no model ({error!r:.100}): give one with '
            '--config'
        ) from error
    layout, config = hf.model_config(plan.model, plan.head)
    network = plan.to_network(state_dict)
    count = len(network['head.class_head.weight']) - 1
    dataset_meta = meta.get('dataset_meta') or plan.dataset_meta
    classes = dataset_meta.get('classes', ())
    if len(classes) != count:
        classes = [f'LABEL_{i}' for i in range(count)]
    if is_ade20k_panoptic(dataset_meta):
        network = _reorder_classes(network, _release_order)
        # The last row is "no object" and has no name.
        classes = [classes[i] for i in _release_order(torch.arange(count + 1))[:-1]]
    unused = checkpoint.get('unused', hf.fresh_unused(plan.model, plan.head))
    tensors = layout.to_file_names(network, unused)
    config |= label_config(classes)
    hf.write_folder(folder, tensors, config, hf.processor_config(cfg, config))
    return config


def _refuse_other_images(source: Source, plan: Blueprint) -> None:
    """Compare the normalisation in the authors' files, in numbers from 0 to 1."""
    preprocessor = plan.cfg.model.get('data_preprocessor') or {}
    for stored_as, name in (('pixel_mean', 'mean'), ('pixel_std', 'std')):
        if source.unused is None or stored_as not in source.unused:
            continue
        stored = source.unused[stored_as].flatten().float()
        wanted = torch.tensor(preprocessor.get(name) or [0.0]) / 255
        if stored.shape != wanted.shape or not stored.allclose(wanted, rtol=5e-3):
            raise UserError(
                f'{source.path} normalises images with {stored_as} '
                f'{_numbers(stored)}, {plan.name} with {_numbers(wanted)}: give a '
                f'config that sets data_preprocessor.{name} to that of the file, '
                'times 255, with --config'
            )


def _numbers(values: Tensor) -> str:
    return f'({", ".join(f"{value:.3f}" for value in values.tolist())})'


def _compare_classes(source: Source, plan: Blueprint) -> None:
    """Compare the class names, in the order of the file."""
    classes = list(plan.dataset_meta.get('classes', ()))
    if is_ade20k_panoptic(plan.dataset_meta):
        order = _release_order(torch.arange(len(classes) + 1))
        classes = [classes[i] for i in order[:-1]]
    remark = refuse_other_classes(source.beside, classes, source.path, plan.name)
    if remark:
        print_log(f'note: {remark}')


def _is_of_transformers(source: Source) -> bool:
    """Whether the `config.json` beside a file is of transformers and belongs to it."""
    return (
        source.beside.get('model_type') in ('eomt', 'eomt_dinov3')
        and source.beside.get('num_queries') == source.inventory.num_queries
    )


def _reorder_classes(
    network: dict[str, Tensor], order: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    keys = ('head.class_head.weight', 'head.class_head.bias')
    return network | {key: order(network[key]) for key in keys if key in network}


def _things_first(rows: Tensor) -> Tensor:
    """Sort rows from the order of ADE20K's release to MMDetection's."""
    from eomt_mm.datasets.ade20k_panoptic import things_first

    return things_first(rows)


def _release_order(rows: Tensor) -> Tensor:
    """Reverse `_things_first`."""
    return rows[_things_first(torch.arange(len(rows))).argsort()]
