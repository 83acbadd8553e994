# EoMT with DINOv2 ViT-L as a semantic segmentor. The leaf config sets backbone.img_size
# and the number of classes; sizes of head and preprocessor follow from the backbone.
model = dict(
    type='eomt_mm.EoMTSegmentor',
    data_preprocessor=dict(
        type='eomt_mm.EoMTSegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='eomt_mm.QueryViT',
        arch='vit_large_patch14_reg4_dinov2',
        patch_size=16,
        num_queries=100,
        num_blocks=4,
        pretrained=True,
    ),
    decode_head=dict(
        type='eomt_mm.SemanticHead',
        criterion=dict(
            type='eomt_mm.Criterion',
            class_weight=2.0,
            mask_weight=5.0,
            dice_weight=5.0,
            no_object_weight=0.1,
            num_points=12544,
        ),
    ),
    test_cfg=dict(max_windows=16, keep_logits=False),
)
