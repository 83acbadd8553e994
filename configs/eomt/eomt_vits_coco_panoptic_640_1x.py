# EoMT-S (DINOv2) on COCO panoptic, 133 classes, 640 x 640, 12 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_vits_coco_panoptic_640_1x.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vits_coco_panoptic_640_1x.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 44.7 (quoted, arXiv 2503.19108 Table 3; not
# measured with this code). 23,975,942 parameters.
_base_ = './eomt_vitl_coco_panoptic_640.py'
model = dict(backbone=dict(arch='vit_small_patch14_reg4_dinov2', num_blocks=3))
