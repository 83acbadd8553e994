# EoMT-S+ (DINOv3) on COCO panoptic, 133 classes, 640 x 640, 24 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitsplus_coco_panoptic_640_2x.py 4 \
#       --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitsplus_coco_panoptic_640_2x.py \
#       CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. No published score. 30,453,254 parameters, 79.7 GFLOPs.
_base_ = './eomt_dinov3_vits_coco_panoptic_640_2x.py'
model = dict(backbone=dict(arch='vit_small_plus_patch16_dinov3_qkvb.lvd1689m'))
