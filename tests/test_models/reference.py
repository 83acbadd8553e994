"""Hugging Face's EoMT as an independent oracle, loaded with our weights."""

import torch
from transformers import (
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
)

from tiny_models import tiny_network

# The head's names in Hugging Face's model.
HEAD_NAMES = {
    'class_head': 'class_predictor',
    'mask_mlp.0': 'mask_head.fc1',
    'mask_mlp.2': 'mask_head.fc2',
    'mask_mlp.4': 'mask_head.fc3',
    'upscale.0.conv1': 'upscale_block.block.0.conv1',
    'upscale.0.conv2': 'upscale_block.block.0.conv2',
    'upscale.0.norm': 'upscale_block.block.0.layernorm2d',
    'upscale.1.conv1': 'upscale_block.block.1.conv1',
    'upscale.1.conv2': 'upscale_block.block.1.conv2',
    'upscale.1.norm': 'upscale_block.block.1.layernorm2d',
}
TOKEN_NAMES = {
    'cls_token': 'embeddings.cls_token',
    'reg_token': 'embeddings.register_tokens',
    'pos_embed': 'embeddings.position_embeddings.weight',
    'patch_embed.proj.weight': 'embeddings.patch_embeddings.projection.weight',
    'patch_embed.proj.bias': 'embeddings.patch_embeddings.projection.bias',
    'norm.weight': 'layernorm.weight',
    'norm.bias': 'layernorm.bias',
    'queries': 'query.weight',
}
BLOCK_NAMES = {
    'attn.proj': 'attention.out_proj',
    'ls1.gamma': 'layer_scale1.lambda1',
    'ls2.gamma': 'layer_scale2.lambda1',
}
DINOV3_NAMES = {
    'patch_embed.proj': 'embeddings.patch_embeddings',
    'attn.proj': 'attention.o_proj',
    'gamma_1': 'layer_scale1.lambda1',
    'gamma_2': 'layer_scale2.lambda1',
    'mlp.fc1': 'mlp.up_proj',
    'mlp.fc2': 'mlp.down_proj',
}


def tiny_pair(swiglu=False, **size):
    """A tiny EoMT of ours and Hugging Face's with the same random weights.

    Returns (backbone, head, reference), all in fp32 and training mode.
    """
    arch = f'vit_{"giant" if swiglu else "small"}_patch14_reg4_dinov2'
    ratio = 5.5 if swiglu else 4
    backbone, head = tiny_network(arch, 0.2, **size, mlp_ratio=ratio)
    reference = EomtForUniversalSegmentation(
        EomtConfig(
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=backbone.img_size[0],
            patch_size=16,
            num_blocks=2,
            num_queries=backbone.num_queries,
            num_labels=head.num_classes,
            use_swiglu_ffn=swiglu,
            train_num_points=128,
        )
    )
    loaded = reference.load_state_dict(
        to_reference(backbone, head, swiglu), strict=False
    )
    assert not loaded.unexpected_keys
    assert set(loaded.missing_keys) <= {'attn_mask_probs', 'criterion.empty_weight'}
    return backbone.train(), head.train(), reference.train()


def tiny_dinov3_pair():
    """See `tiny_pair`; DINOv3 with its rotary codes, in evaluation mode."""
    backbone, head = tiny_network('vit_small_patch16_dinov3_qkvb', 0.2)
    reference = EomtDinov3ForUniversalSegmentation(
        EomtDinov3Config(
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=64,
            patch_size=16,
            num_blocks=2,
            num_queries=backbone.num_queries,
            num_labels=head.num_classes,
            layer_norm_eps=1e-5,
        )
    )
    state = {}
    for name, parameter in head.named_parameters():
        module, _, leaf = name.rpartition('.')
        state[f'{HEAD_NAMES[module]}.{leaf}'] = parameter.data
    for name, parameter in backbone.named_parameters():
        tensor, name = parameter.data, TOKEN_NAMES.get(name, name)
        name = name.replace('blocks.', 'layers.')
        parts = zip('qkv', tensor.chunk(3), strict=False)
        if name.endswith('attn.qkv.weight'):
            stem = name.replace('attn.qkv.weight', 'attention.')
            state |= {f'{stem}{part}_proj.weight': rows for part, rows in parts}
            continue
        for part in 'qv':
            name = name.replace(f'attn.{part}_bias', f'attention.{part}_proj.bias')
        for ours, theirs in DINOV3_NAMES.items():
            name = name.replace(ours, theirs)
        name = name.replace('patch_embeddings.projection', 'patch_embeddings')
        state[name] = tensor
    loaded = reference.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    assert set(loaded.missing_keys) <= {'attn_mask_probs', 'criterion.empty_weight'}
    return backbone.eval(), head.eval(), reference.eval()


def to_reference(backbone, head, swiglu=False, grad=False):
    """Our parameters (or their gradients) under Hugging Face's names."""

    def value(parameter):
        return parameter.grad if grad else parameter.data

    out = {}
    for name, parameter in head.named_parameters():
        module, _, leaf = name.rpartition('.')
        out[f'{HEAD_NAMES[module]}.{leaf}'] = value(parameter)
    for name, parameter in backbone.named_parameters():
        tensor = value(parameter)
        if name in TOKEN_NAMES:
            out[TOKEN_NAMES[name]] = tensor[0] if name == 'pos_embed' else tensor
            continue
        _, index, rest = name.split('.', 2)
        if rest.startswith('attn.qkv'):
            leaf = rest.rpartition('.')[2]
            for part, rows in zip('qkv', tensor.chunk(3), strict=True):
                out[f'layers.{index}.attention.{part}_proj.{leaf}'] = rows
            continue
        if swiglu and rest.startswith('mlp.fc1'):
            leaf = rest.rpartition('.')[2]
            for part, rows in zip(('gate', 'up'), tensor.chunk(2), strict=True):
                out[f'layers.{index}.mlp.{part}_proj.{leaf}'] = rows
            continue
        if swiglu:
            rest = rest.replace('mlp.fc2', 'mlp.down_proj')
        for ours, theirs in BLOCK_NAMES.items():
            rest = rest.replace(ours, theirs)
        out[f'layers.{index}.{rest}'] = tensor
    return out


def fixed_rand(*shape, device=None):
    """A stand-in for torch.rand: the same points for every pair of masks."""
    generator = torch.Generator().manual_seed(7)
    if len(shape) == 3 and shape[2] == 2:
        points = torch.empty(1, *shape[1:]).uniform_(generator=generator)
        return points.expand(shape).clone()
    return torch.empty(shape).uniform_(generator=generator)
