# ViT-Adapter + Mask2Former with DINOv2 ViT-L as a semantic segmentor. The leaf config
# sets backbone.img_size and the number of classes; sizes of head and preprocessor
# follow from the backbone.
_base_ = './mask2former_head.py'
model = dict(
    type='eomt_mm.Mask2FormerSegmentor',
    data_preprocessor=dict(
        type='eomt_mm.EoMTSegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='eomt_mm.ViTAdapter',
        arch='vit_large_patch14_reg4_dinov2',
        patch_size=16,
        pretrained=True,
    ),
    decode_head=dict(
        type='eomt_mm.SemanticMask2FormerHead',
        num_queries=100,
        train_cfg={{_base_.mask2former_train_cfg}},
        **_base_.mask2former_head,
    ),
    test_cfg=dict(max_windows=16, keep_logits=False),
)
