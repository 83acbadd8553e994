# EoMT with DINOv2 ViT-L as a panoptic detector. The leaf config sets
# backbone.img_size and the numbers of classes; without stuff, and with
# panoptic_on=False and instance_on=True, it is an instance detector. Sizes of head and
# preprocessor follow from the backbone.
model = dict(
    type='eomt_mm.EoMTDetector',
    data_preprocessor=dict(
        type='eomt_mm.EoMTDetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='eomt_mm.QueryViT',
        arch='vit_large_patch14_reg4_dinov2',
        patch_size=16,
        num_queries=200,
        num_blocks=4,
        pretrained=True,
    ),
    panoptic_head=dict(
        type='eomt_mm.PanopticHead',
        criterion=dict(
            type='eomt_mm.Criterion',
            class_weight=2.0,
            mask_weight=5.0,
            dice_weight=5.0,
            no_object_weight=0.1,
            num_points=12544,
        ),
    ),
    test_cfg=dict(
        panoptic_on=True,
        instance_on=False,
        semantic_on=False,
        object_mask_thr=0.8,
        iou_thr=0.8,
        max_per_image=100,
    ),
)
