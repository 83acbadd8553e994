# Step (2) of the ladder, without pixel decoder, with DINOv2 ViT-g on COCO panoptic, 133
# classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step2_vitg_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/ladder/step2_vitg_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. The paper has no score for it. 1191.06 M parameters.
_base_ = './step2_vitl_coco_panoptic_640.py'
model = dict(
    backbone=dict(arch='vit_giant_patch14_reg4_dinov2'),
    neck=dict(embed_dims=1536),
    panoptic_head=dict(in_channels=[1536] * 4),
)
