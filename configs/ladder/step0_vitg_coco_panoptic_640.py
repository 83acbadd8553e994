# Step (0) of the ladder, ViT-Adapter + Mask2Former, with DINOv2 ViT-g on COCO panoptic,
# 133 classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step0_vitg_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/ladder/step0_vitg_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 57.7 (quoted, arXiv 2503.19108 Table 3; not measured
# with this code). 1208.65 M parameters.
_base_ = './step0_vitl_coco_panoptic_640.py'
model = dict(backbone=dict(arch='vit_giant_patch14_reg4_dinov2'))
