# Step (0) of the ladder in miniature, ViT-Adapter + Mask2Former, as a semantic
# model: tested out of distribution.
#
#   python tools/reproduce.py --table ood
#   python tools/train.py configs/demo/ladder/step0_scenes_semantic.py
_base_ = [
    './recipe_semantic.py',
    '../../_base_/models/vit_adapter_mask2former_vitl_semantic.py',
]
# As step0_scenes_panoptic.py: half the width of Mask2Former, a third of its layers.
dims = 128
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(
        arch='vit_tiny_patch16_224',
        img_size={{_base_.crop_size}},
        patch_size=8,
        timm_args=dict(embed_dim=128, depth=4, num_heads=4),
        pretrained=False,
    ),
    decode_head=dict(
        num_classes=7,
        num_queries=10,
        in_channels=[128] * 4,
        feat_channels=dims,
        out_channels=dims,
        pixel_decoder=dict(
            encoder=dict(
                num_layers=2,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=dims, num_heads=4),
                    ffn_cfg=dict(embed_dims=dims, feedforward_channels=512),
                ),
            ),
            positional_encoding=dict(num_feats=dims // 2),
        ),
        positional_encoding=dict(num_feats=dims // 2),
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=dims, num_heads=4),
                cross_attn_cfg=dict(embed_dims=dims, num_heads=4),
                ffn_cfg=dict(embed_dims=dims, feedforward_channels=1024),
            ),
        ),
        loss_cls=dict(class_weight=[1.0] * 7 + [0.1]),
        train_cfg=dict(num_points=784),
    ),
    test_cfg=dict(confidence='class_score'),
)
# Masks stay on.
custom_hooks = [
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
