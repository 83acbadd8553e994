# ViT-Adapter + Mask2Former with DINOv2 ViT-L as a panoptic detector. The leaf config
# sets backbone.img_size and the numbers of classes; without stuff, and with
# panoptic_on=False and instance_on=True, it is an instance detector. Sizes of head and
# preprocessor follow from the backbone.
_base_ = './mask2former_head.py'
model = dict(
    type='eomt_mm.Mask2FormerDetector',
    data_preprocessor=dict(
        type='eomt_mm.EoMTDetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='eomt_mm.ViTAdapter',
        arch='vit_large_patch14_reg4_dinov2',
        patch_size=16,
        pretrained=True,
    ),
    panoptic_head=dict(
        type='eomt_mm.Mask2FormerHead', num_queries=200, **_base_.mask2former_head
    ),
    train_cfg={{_base_.mask2former_train_cfg}},
    test_cfg=dict(
        panoptic_on=True,
        instance_on=False,
        semantic_on=False,
        object_mask_thr=0.8,
        iou_thr=0.8,
        max_per_image=100,
    ),
)
