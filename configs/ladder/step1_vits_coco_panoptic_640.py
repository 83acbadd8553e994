# Step (1) of the ladder, without ViT-Adapter, with DINOv2 ViT-S on COCO panoptic, 133
# classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step1_vits_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/ladder/step1_vits_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. The paper has no score for it. 44.58 M parameters.
_base_ = './step1_vitl_coco_panoptic_640.py'
model = dict(
    backbone=dict(arch='vit_small_patch14_reg4_dinov2'),
    neck=dict(embed_dims=384),
    panoptic_head=dict(in_channels=[384] * 4),
)
