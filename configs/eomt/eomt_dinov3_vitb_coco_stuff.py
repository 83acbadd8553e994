# EoMT-B (DINOv3) on COCO-Stuff 164k, 171 classes, 512 x 512, 12 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitb_coco_stuff.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitb_coco_stuff.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. mIoU 50.1 (quoted, LightlyTrain's documentation, of its
# own code; not measured with this code). 92,454,316 parameters, 129.1 GFLOPs.
_base_ = './eomt_dinov3_vitl_coco_stuff.py'
model = dict(backbone=dict(arch='vit_base_patch16_dinov3_qkvb.lvd1689m', num_blocks=3))
