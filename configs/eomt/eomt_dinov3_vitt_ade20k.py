# EoMT-T (EUPE's ViT-T, DINOv3's architecture) on ADE20K, 150 classes, 512 x 512, 16
# epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitt_ade20k.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitt_ade20k.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. The weights of EUPE (arXiv 2603.22387) are licensed for
# non-commercial research alone. No published score. 5,948,695 parameters, 12.0
# GFLOPs.
_base_ = './eomt_dinov3_vitl_ade20k.py'
model = dict(
    backbone=dict(arch='vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m', num_blocks=3)
)
