# Step (5) of the ladder, without masking = EoMT, with DINOv2 ViT-L on Cityscapes, 19
# classes, 1024 x 1024.
#
#   tools/dist_train.sh configs/ladder/step5_vitl_cityscapes.py 4 --amp
#   python tools/test.py configs/ladder/step5_vitl_cityscapes.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. mIoU 84.2 (quoted, arXiv 2503.19108 Table 5; not measured
# with this code). 319,032,340 parameters.
_base_ = '../eomt/eomt_vitl_cityscapes.py'
