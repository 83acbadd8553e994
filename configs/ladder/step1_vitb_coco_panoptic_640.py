# Step (1) of the ladder, without ViT-Adapter, with DINOv2 ViT-B on COCO panoptic, 133
# classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step1_vitb_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/ladder/step1_vitb_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. The paper has no score for it. 116.76 M parameters.
_base_ = './step1_vitl_coco_panoptic_640.py'
model = dict(
    backbone=dict(arch='vit_base_patch14_reg4_dinov2'),
    neck=dict(embed_dims=768),
    panoptic_head=dict(in_channels=[768] * 4),
)
