# EoMT-L (DINOv2) on ADE20K panoptic, 150 classes, 1280 x 1280.
#
#   tools/dist_train.sh configs/eomt/eomt_vitl_ade20k_panoptic_1280.py 4 --amp \
#       --cfg-options load_from=COCO_CHECKPOINT
#   python tools/test.py configs/eomt/eomt_vitl_ade20k_panoptic_1280.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 51.7 (quoted, arXiv 2503.19108 Table 4; not
# measured with this code). 321,628,311 parameters.
_base_ = './eomt_vitl_ade20k_panoptic_640.py'
from eomt_mm.crop_size import set_crop_size

set_crop_size(_base_, (1280, 1280))
