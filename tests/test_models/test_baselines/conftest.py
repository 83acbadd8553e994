"""Small Mask2Formers, from the configs' own dict."""

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope


def merged(base, changes):
    """`base` with nested changes."""
    cfg = Config(dict(node=base))
    cfg.merge_from_dict(dict(node=changes))
    return cfg.node


@pytest.fixture
def head_config(root):
    """`head_config(type, ...)`: three layers, maps of 32 channels, 3 + 2 classes."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(root / 'configs/_base_/models/mask2former_head.py')

    def make(kind, **changes):
        small = dict(
            type=kind,
            in_channels=[32] * 4,
            num_queries=6,
            pixel_decoder=dict(encoder=dict(num_layers=1)),
            transformer_decoder=dict(num_layers=3),
            loss_cls=dict(class_weight=[1.0] * 5 + [0.1]),
            train_cfg=merged(cfg.mask2former_train_cfg, dict(num_points=64)),
        )
        if 'Semantic' in kind or 'mmseg' in kind:
            small['num_classes'] = 5
        else:
            small |= dict(num_things_classes=3, num_stuff_classes=2)
        return ConfigDict(merged(merged(cfg.mask2former_head, small), changes))

    return make


@pytest.fixture
def adapter_config():
    """A ViT-Adapter for images of 64 pixels, maps of 32 channels."""
    return ConfigDict(
        type='eomt_mm.ViTAdapter',
        arch='vit_tiny_patch16_224',
        img_size=64,
        patch_size=8,
        pretrained=False,
        timm_args=dict(embed_dim=32, depth=4, num_heads=2),
    )
