# EoMT-B (DINOv2) on ADE20K, 150 classes, 512 x 512.
#
#   tools/dist_train.sh configs/eomt/eomt_vitb_ade20k.py 4 --amp
#   python tools/test.py configs/eomt/eomt_vitb_ade20k.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. The paper has no score for this size on ADE20K.
_base_ = './eomt_vitl_ade20k.py'
model = dict(backbone=dict(arch='vit_base_patch14_reg4_dinov2', num_blocks=3))
