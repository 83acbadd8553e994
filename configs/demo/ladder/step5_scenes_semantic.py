# Step (5) of the ladder in miniature, EoMT with masks annealed away, as a semantic
# model: tested out of distribution.
#
#   python tools/reproduce.py --table ood
#   python tools/train.py configs/demo/ladder/step5_scenes_semantic.py
_base_ = ['./recipe_semantic.py', '../../_base_/models/eomt_vitl_semantic.py']
patch_size = 8
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    backbone=dict(
        arch='vit_tiny_patch16_224',
        img_size={{_base_.crop_size}},
        patch_size=patch_size,
        # ViT-Adapter, in step 0, wants a multiple of four blocks.
        timm_args=dict(embed_dim=128, depth=4, num_heads=4),
        pretrained=False,
        num_queries=10,
        num_blocks=2,
    ),
    decode_head=dict(
        embed_dims=128,
        patch_size=patch_size,
        num_classes=7,
        # A mask has 16 x 16 cells.
        criterion=dict(num_points=784),
    ),
    test_cfg=dict(confidence='class_score'),
)
