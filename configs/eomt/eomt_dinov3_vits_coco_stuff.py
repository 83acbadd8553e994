# EoMT-S (DINOv3) on COCO-Stuff 164k, 171 classes, 512 x 512, 12 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vits_coco_stuff.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vits_coco_stuff.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. mIoU 45.0 (quoted, LightlyTrain's documentation, of its
# own code; not measured with this code). 23,371,564 parameters, 38.6 GFLOPs.
_base_ = './eomt_dinov3_vitl_coco_stuff.py'
model = dict(backbone=dict(arch='vit_small_patch16_dinov3_qkvb.lvd1689m', num_blocks=3))
