# EoMT-L (DINOv3) on COCO panoptic, 133 classes, 1280 x 1280, 12 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitl_coco_panoptic_1280.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitl_coco_panoptic_1280.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 58.9 (quoted, the authors' model zoo; not
# measured with this code). 315,032,710 parameters.
_base_ = './eomt_dinov3_vitl_coco_panoptic_640.py'
from eomt_mm.crop_size import set_crop_size

set_crop_size(_base_, (1280, 1280))
