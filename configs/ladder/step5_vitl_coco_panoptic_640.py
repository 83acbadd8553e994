# Step (5) of the ladder, without masking = EoMT, with DINOv2 ViT-L on COCO panoptic,
# 133 classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step5_vitl_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/ladder/step5_vitl_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 56.0 (quoted, arXiv 2503.19108 Table 1; not measured
# with this code). 316,695,686 parameters.
_base_ = '../eomt/eomt_vitl_coco_panoptic_640.py'
