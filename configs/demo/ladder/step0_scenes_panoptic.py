# Step (0) of the ladder in miniature, ViT-Adapter + Mask2Former.
#
#   make reproduce
#   python tools/train.py configs/demo/ladder/step0_scenes_panoptic.py
_base_ = ['./recipe.py', '../../_base_/models/vit_adapter_mask2former_vitl_panoptic.py']
# Half the width of Mask2Former, a third of its layers: one for each scale.
dims = 128
model = dict(
    backbone=dict(
        arch='vit_tiny_patch16_224',
        img_size={{_base_.crop_size}},
        patch_size=8,
        timm_args=dict(embed_dim=128, depth=4, num_heads=4),
        pretrained=False,
    ),
    panoptic_head=dict(
        num_things_classes=5,
        num_stuff_classes=2,
        num_queries=10,
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
    ),
    train_cfg=dict(num_points=784),
    test_cfg=dict(semantic_on=True),
)
# Masks stay on.
custom_hooks = [
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
