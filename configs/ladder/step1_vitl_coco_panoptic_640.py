# Step (1) of the ladder, without ViT-Adapter, with DINOv2 ViT-L on COCO panoptic, 133
# classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step1_vitl_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/ladder/step1_vitl_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 56.7 (quoted, arXiv 2503.19108 Table 1; not measured
# with this code). 342,263,622 parameters.
_base_ = './step0_vitl_coco_panoptic_640.py'
model = dict(
    backbone=dict(type='eomt_mm.PlainViT'),
    neck=dict(type='eomt_mm.FeaturePyramid'),
)
