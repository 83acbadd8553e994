# EoMT-S+ (DINOv3) on ADE20K, 150 classes, 512 x 512, 16 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitsplus_ade20k.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitsplus_ade20k.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. No published score. 30,421,399 parameters, 44.3 GFLOPs.
_base_ = './eomt_dinov3_vitl_ade20k.py'
model = dict(
    backbone=dict(arch='vit_small_plus_patch16_dinov3_qkvb.lvd1689m', num_blocks=3)
)
