"""Tiny EoMTs made by transformers itself, and configs of ours for them."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from transformers import (
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
)

from eomt_mm.models.network import Network
from eomt_mm.registry import MODELS

ROOT = Path(__file__).parents[2]
ARCHS = {
    'gelu': 'vit_small_patch14_reg4_dinov2',
    'swiglu': 'vit_giant_patch14_reg4_dinov2',
    'dinov3': 'vit_small_patch16_dinov3_qkvb',
}
FAMILIES = tuple(ARCHS)
CLASSES = 7  # of the synthetic scenes
CONFIG = """
_base_ = {base!r}
model = dict(
    backbone=dict(
        arch={arch!r},
        patch_size=16,
        num_queries=6,
        num_blocks=2,
        timm_args=dict(embed_dim=64, depth=4, num_heads=4{ratio}),
    ),
    {head}=dict(embed_dims=64, patch_size=16{classes}),
)
"""


def write_config(path, family, base='configs/demo/eomt_scenes_semantic.py', classes=''):
    """A config of ours for the networks of `save_reference`."""
    path.write_text(
        CONFIG.format(
            base=str(ROOT / base),
            arch=ARCHS.get(family, family),
            ratio=', mlp_ratio=5.5' if family == 'swiglu' else '',
            head='decode_head' if 'semantic' in base else 'panoptic_head',
            classes=classes,
        )
    )
    return path


def make_reference(family, classes=CLASSES, image_size=64):
    """A network of transformers, every tensor of it random; norms are around 1."""
    torch.manual_seed(0)
    common = dict(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=image_size,
        num_blocks=2,
        num_queries=6,
        num_labels=classes,
    )
    if family == 'dinov3':
        config = EomtDinov3Config(intermediate_size=256, layer_norm_eps=1e-5, **common)
        model = EomtDinov3ForUniversalSegmentation(config)
    else:
        config = EomtConfig(use_swiglu_ffn=family == 'swiglu', **common)
        model = EomtForUniversalSegmentation(config)
    for name, tensor in model.state_dict().items():
        torch.nn.init.normal_(tensor, std=0.2)
        if name.endswith(('norm.weight', 'norm1.weight', 'norm2.weight', '2d.weight')):
            tensor += 1
    return model.eval()


def unmasked(model, images):
    """Class logits and mask logits of a network of transformers, without masks."""
    model.attn_mask_probs.zero_()
    with torch.no_grad():
        found = model(pixel_values=images)
    return found.class_queries_logits, found.masks_queries_logits


def build(config, checkpoint):
    """A model of ours with all weights of a checkpoint."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)
    return model.eval()


def outputs(model, images):
    """Class logits and mask logits of a model of ours."""
    head = model.decode_head if hasattr(model, 'decode_head') else model.panoptic_head
    with torch.no_grad():
        return Network(model.backbone, head)(images)


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
