# EoMT-L (DINOv3) on ADE20K, 150 classes, 1024 x 1024, 16 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitl_ade20k_1024.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitl_ade20k_1024.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. No published score. 314,947,735 parameters, 2175.3
# GFLOPs.
_base_ = './eomt_dinov3_vitl_ade20k.py'
from eomt_mm.crop_size import set_crop_size

set_crop_size(_base_, (1024, 1024))
