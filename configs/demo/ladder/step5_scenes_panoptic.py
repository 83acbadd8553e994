# Step (5) of the ladder in miniature, without masking = EoMT: masks are annealed away.
#
#   make reproduce
#   python tools/train.py configs/demo/ladder/step5_scenes_panoptic.py
_base_ = ['./recipe.py', '../../_base_/models/eomt_vitl_panoptic.py']
model = dict(
    backbone=dict(
        arch='vit_tiny_patch16_224',
        img_size={{_base_.crop_size}},
        patch_size=8,
        # ViT-Adapter, in step 0, wants a multiple of four blocks.
        timm_args=dict(embed_dim=128, depth=4, num_heads=4),
        pretrained=False,
        num_queries=10,
        num_blocks=2,
    ),
    panoptic_head=dict(
        num_things_classes=5,
        num_stuff_classes=2,
        # A mask has 16 x 16 cells.
        criterion=dict(num_points=784),
    ),
    # Its mIoU as well.
    test_cfg=dict(semantic_on=True),
)
