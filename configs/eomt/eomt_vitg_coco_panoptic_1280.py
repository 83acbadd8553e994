# EoMT-g (DINOv2) on COCO panoptic, 133 classes, 1280 x 1280.
#
#   tools/dist_train.sh configs/eomt/eomt_vitg_coco_panoptic_1280.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vitg_coco_panoptic_1280.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 59.2 (quoted, arXiv 2503.19108 Table 4; not
# measured with this code). 1,170,994,822 parameters.
_base_ = './eomt_vitl_coco_panoptic_1280.py'
model = dict(backbone=dict(arch='vit_giant_patch14_reg4_dinov2', num_blocks=5))
