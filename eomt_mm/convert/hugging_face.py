"""The files of a model on the Hugging Face hub, and their writing.

`config.json` describes the model that `transformers` builds, `preprocessor_config.json`
its preparation of images.
"""

import json
import shutil
from pathlib import Path

import safetensors.torch
import torch
from mmengine.config import Config
from torch import Tensor, nn

from eomt_mm.errors import UserError, shorten

from .inventory import family_of
from .layout import Layout
from .layouts import EOMT, EOMT_DINOV3, EOMT_SWIGLU
from .writing import whole_folder

# Keys of a config.json that describe the function, not the training.
FUNCTION = (
    'hidden_size',
    'num_hidden_layers',
    'num_attention_heads',
    'hidden_act',
    'layer_norm_eps',
    'patch_size',
    'num_channels',
    'num_upscale_blocks',
    'num_blocks',
    'num_queries',
    'num_register_tokens',
    'use_swiglu_ffn',
    'query_bias',
    'key_bias',
    'value_bias',
    'use_gated_mlp',
    'rope_theta',
)


def model_config(model: nn.Module, head: str) -> tuple[Layout, dict]:
    """Make the `config.json` of a model, without its classes.

    Args:
        model (nn.Module): A segmentor or detector with a `QueryViT`.
        head (str): Name of its head.

    Returns:
        tuple[Layout, dict]: The names of its tensors in `transformers`, and the config.

    Raises:
        UserError: If `transformers` has no such model.
    """
    backbone, head = model.backbone, model.get_submodule(head)
    family = family_of(backbone.arch)
    if family is None:
        raise UserError(
            f'transformers has no EoMT with {backbone.arch}: only with DINOv2 with '
            'registers (vit_*_patch14_reg4_dinov2) and DINOv3 (vit_*_patch16_dinov3*)'
        )
    height, width = backbone.img_size
    if height != width:
        raise UserError(
            f'the model takes {height} x {width} pixels, in transformers EoMT takes '
            'squares only'
        )
    block, criterion = backbone.blocks[0], head.criterion
    config = dict(
        hidden_size=backbone.embed_dims,
        num_hidden_layers=backbone.depth,
        num_attention_heads=block.attn.num_heads,
        hidden_act='gelu',
        hidden_dropout_prob=0.0,
        attention_dropout=0.0,
        drop_path_rate=0.0,
        initializer_range=0.02,
        layer_norm_eps=backbone.norm.eps,
        layerscale_value=1e-5,
        image_size=height,
        patch_size=backbone.patch_size,
        num_channels=3,
        num_upscale_blocks=len(head.upscale),
        num_blocks=backbone.num_blocks,
        num_queries=backbone.num_queries,
        num_register_tokens=backbone.num_prefix_tokens - 1,
        no_object_weight=criterion.no_object_weight,
        class_weight=criterion.class_weight,
        mask_weight=criterion.mask_weight,
        dice_weight=criterion.dice_weight,
        train_num_points=criterion.num_points,
        oversample_ratio=criterion.num_candidates / criterion.num_points,
        importance_sample_ratio=criterion.num_uncertain / criterion.num_points,
    )
    width = block.mlp.fc1.out_features
    if family == 'DINOv3':
        config['rope_theta'] = float(backbone.rope.temperature)
        return EOMT_DINOV3, _as_dinov3(config, width, block.attn.q_bias is not None)
    return _as_dinov2(config, width, is_gated=width != block.mlp.fc2.in_features)


def _as_dinov2(config: dict, width: int, is_gated: bool) -> tuple[Layout, dict]:
    """Add the MLP, whose width transformers computes from an integer ratio."""
    channels, layout = config['hidden_size'], EOMT_SWIGLU if is_gated else EOMT
    ratio, expected = width // channels, width // channels * channels
    if is_gated:  # two thirds of four times the channels, a multiple of 8, twice
        ratio, expected = 4, 2 * ((int(channels * 4 * 2 / 3) + 7) // 8 * 8)
    if width != expected:
        raise UserError(
            f'the MLP of the model has {width} hidden channels, in transformers it '
            f'has {expected} for {channels} channels'
        )
    extra = dict(model_type='eomt', mlp_ratio=ratio, use_swiglu_ffn=is_gated)
    architecture = 'EomtForUniversalSegmentation'
    return layout, dict(architectures=[architecture], **extra, **config)


def _as_dinov3(config: dict, width: int, has_bias: bool) -> dict:
    return dict(
        architectures=['EomtDinov3ForUniversalSegmentation'],
        model_type='eomt_dinov3',
        **config,
        intermediate_size=width,
        # What transformers 5 reads instead of `rope_theta`.
        rope_parameters=dict(rope_type='default', rope_theta=config['rope_theta']),
        query_bias=has_bias,
        key_bias=False,
        value_bias=has_bias,
        proj_bias=True,
        mlp_bias=True,
        use_gated_mlp=False,
        # transformers' augmentation of the rotary codes, in training alone.
        pos_embed_shift=None,
        pos_embed_jitter=None,
        pos_embed_rescale=2.0,
    )


def refuse_other_function(beside: dict, config: dict, path: Path) -> None:
    """Compare the `config.json` beside a file with the model of the conversion.

    Tensors of equal shapes may belong to another function: other heads, another eps.

    Args:
        beside (dict): The `config.json` beside the file.
        config (dict): Result of `model_config`.
        path (Path): The file of weights.

    Raises:
        UserError: If they differ; names the differences.
    """
    beside = {**(beside.get('rope_parameters') or {}), **beside}
    differing = [
        f'{key} is {beside[key]} there and {config[key]} in the config'
        for key in FUNCTION
        if key in beside and key in config and beside[key] != config[key]
    ]
    if differing:
        raise UserError(
            f'{path.parent / "config.json"} describes another model: '
            f'{shorten(differing, "; ")}. Give the config of that model with --config, '
            'or '
            'take the file away from a config.json that is not its own'
        )


def processor_config(cfg: Config, config: dict) -> dict:
    """Make the `preprocessor_config.json` of a model.

    Args:
        cfg (Config): Its config: a segmentor's image is cut into windows, a
            detector's is fitted into a square.
        config (dict): Its `config.json`.

    Returns:
        dict: Config of transformers' `EomtImageProcessor`.

    Raises:
        UserError: If the network was not trained on RGB images.
    """
    preprocessor, side = cfg.model.data_preprocessor, config['image_size']
    if not preprocessor.get('bgr_to_rgb'):
        raise UserError(
            'data_preprocessor.bgr_to_rgb is not True in the config: the network was '
            'trained on BGR images, and transformers gives it RGB'
        )
    windows = cfg.get('default_scope') == 'mmseg'
    # Without mean and std the network sees pixels from 0 to 255.
    normalises = preprocessor.get('mean') is not None
    mean, std = (
        preprocessor.get('mean') or (0,) * 3,
        preprocessor.get('std') or (255,) * 3,
    )
    return dict(
        image_processor_type='EomtImageProcessor',
        do_resize=True,
        size=dict(shortest_edge=side, longest_edge=None if windows else side),
        resample=2,
        do_split_image=windows,
        do_pad=not windows,
        do_rescale=normalises,
        rescale_factor=1 / 255,
        do_normalize=normalises,
        image_mean=[round(value / 255, 6) for value in mean],
        image_std=[round(value / 255, 6) for value in std],
    )


def fresh_unused(model: nn.Module, head: str) -> dict[str, Tensor]:
    """Make the tensors that transformers keeps beside the network."""
    head = model.get_submodule(head)
    weight = torch.ones(head.num_classes + 1)
    weight[-1] = head.criterion.no_object_weight
    probs = torch.tensor(model.backbone.mask_probs)
    return {'attn_mask_probs': probs, 'criterion.empty_weight': weight}


def write_folder(
    folder: Path, tensors: dict[str, Tensor], config: dict, processor: dict
) -> None:
    """Write the three files, whole or not at all.

    Args:
        folder (Path): Folder to write, absent or empty.
        tensors (dict[str, Tensor]): Tensors under the names of transformers.
        config (dict): Content of `config.json`.
        processor (dict): Content of `preprocessor_config.json`.

    Raises:
        UserError: If it cannot be written.
    """
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    dtype = str(tensors['query.weight'].dtype).removeprefix('torch.')
    with whole_folder(folder) as partial:
        safetensors.torch.save_file(
            tensors, partial / 'model.safetensors', metadata=dict(format='pt')
        )
        for name, content in (
            ('config', {**config, 'dtype': dtype}),
            ('preprocessor_config', processor),
        ):
            text = json.dumps(content, indent=2) + '\n'
            (partial / f'{name}.json').write_text(text)
        # safetensors lets nobody else read what it writes.
        shutil.copymode(partial / 'config.json', partial / 'model.safetensors')
