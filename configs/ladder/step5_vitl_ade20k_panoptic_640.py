# Step (5) of the ladder, without masking = EoMT, with DINOv2 ViT-L on ADE20K panoptic,
# 150 classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step5_vitl_ade20k_panoptic_640.py 4 --amp \
#       --cfg-options load_from=COCO_CHECKPOINT
#   python tools/test.py configs/ladder/step5_vitl_ade20k_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 50.6 (quoted, arXiv 2503.19108 Table 4; not measured
# with this code). 316,713,111 parameters.
_base_ = '../eomt/eomt_vitl_ade20k_panoptic_640.py'
