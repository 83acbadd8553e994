# EoMT-S (DINOv2) on COCO panoptic, 133 classes, 640 x 640, 24 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_vits_coco_panoptic_640_2x.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vits_coco_panoptic_640_2x.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 46.7 (quoted, the authors' model zoo; not
# measured with this code). 23,975,942 parameters.
_base_ = './eomt_vits_coco_panoptic_640_1x.py'
train_cfg = dict(max_iters=177384)
