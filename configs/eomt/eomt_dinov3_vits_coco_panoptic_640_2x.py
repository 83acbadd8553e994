# EoMT-S (DINOv3) on COCO panoptic, 133 classes, 640 x 640, 24 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vits_coco_panoptic_640_2x.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vits_coco_panoptic_640_2x.py \
#       CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 47.2 (quoted, the authors' model zoo; not
# measured with this code). 23,356,934 parameters.
_base_ = './eomt_dinov3_vitl_coco_panoptic_640.py'
model = dict(backbone=dict(arch='vit_small_patch16_dinov3_qkvb.lvd1689m', num_blocks=3))
train_cfg = dict(max_iters=177384)
