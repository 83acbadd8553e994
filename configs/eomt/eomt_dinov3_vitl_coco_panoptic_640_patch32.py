# EoMT-L (DINOv3) on COCO panoptic, 133 classes, 640 x 640, patches of 32 pixels: a
# quarter of the tokens of eomt_dinov3_vitl_coco_panoptic_640.py.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitl_coco_panoptic_640_patch32.py 4 \
#       --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitl_coco_panoptic_640_patch32.py \
#       CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. No published score. 321,598,598 parameters, 185.1
# GFLOPs.
_base_ = './eomt_dinov3_vitl_coco_panoptic_640.py'
# The pre-trained patch embedding is resized (FlexiViT, arXiv 2212.08013); a third
# doubling in the head keeps the masks at stride 4.
model = dict(backbone=dict(patch_size=32))
