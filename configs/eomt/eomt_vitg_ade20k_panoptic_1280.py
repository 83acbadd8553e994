# EoMT-g (DINOv2) on ADE20K panoptic, 150 classes, 1280 x 1280.
#
#   tools/dist_train.sh configs/eomt/eomt_vitg_ade20k_panoptic_1280.py 4 --amp \
#       --cfg-options load_from=COCO_CHECKPOINT
#   python tools/test.py configs/eomt/eomt_vitg_ade20k_panoptic_1280.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 52.8 (quoted, arXiv 2503.19108 Table 4; not
# measured with this code). 1,171,020,951 parameters.
_base_ = './eomt_vitl_ade20k_panoptic_1280.py'
model = dict(backbone=dict(arch='vit_giant_patch14_reg4_dinov2', num_blocks=5))
