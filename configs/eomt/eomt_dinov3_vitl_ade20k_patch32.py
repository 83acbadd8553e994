# EoMT-L (DINOv3) on ADE20K, 150 classes, 512 x 512, patches of 32 pixels: a quarter of
# the tokens of eomt_dinov3_vitl_ade20k.py.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitl_ade20k_patch32.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitl_ade20k_patch32.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. No published score; docs/model_zoo.md has those of patch
# 32 on COCO-Stuff. 321,513,623 parameters, 113.5 GFLOPs.
_base_ = './eomt_dinov3_vitl_ade20k.py'
# The pre-trained patch embedding is resized (FlexiViT, arXiv 2212.08013); a third
# doubling in the head keeps the masks at stride 4.
model = dict(backbone=dict(patch_size=32))
