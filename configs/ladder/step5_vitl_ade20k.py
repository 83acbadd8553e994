# Step (5) of the ladder, without masking = EoMT, with DINOv2 ViT-L on ADE20K, 150
# classes, 512 x 512.
#
#   tools/dist_train.sh configs/ladder/step5_vitl_ade20k.py 4 --amp
#   python tools/test.py configs/ladder/step5_vitl_ade20k.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. mIoU 58.4 (quoted, arXiv 2503.19108 Table 5; not measured
# with this code). 316,020,887 parameters.
_base_ = '../eomt/eomt_vitl_ade20k.py'
