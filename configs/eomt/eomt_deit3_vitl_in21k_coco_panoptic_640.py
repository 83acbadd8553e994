# EoMT-L (DeiT-III, ImageNet-21K) on COCO panoptic, 133 classes, 640 x 640.
#
#   tools/dist_train.sh configs/eomt/eomt_deit3_vitl_in21k_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/eomt/eomt_deit3_vitl_in21k_coco_panoptic_640.py \
#       CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 50.0 (quoted, arXiv 2503.19108 Table 2; not
# measured with this code). 316,691,590 parameters.
_base_ = './eomt_vitl_coco_panoptic_640.py'
model = dict(backbone=dict(arch='deit3_large_patch16_384.fb_in22k_ft_in1k'))
