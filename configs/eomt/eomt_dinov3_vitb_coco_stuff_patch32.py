# EoMT-B (DINOv3) on COCO-Stuff 164k, 171 classes, 512 x 512, 12 epochs, patches of 32
# pixels: a quarter of the tokens of eomt_dinov3_vitb_coco_stuff.py.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitb_coco_stuff_patch32.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitb_coco_stuff_patch32.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. mIoU 48.3 (quoted, LightlyTrain's documentation, of its
# own code; not measured with this code). 96,592,300 parameters, 44.8 GFLOPs.
_base_ = './eomt_dinov3_vitb_coco_stuff.py'
# The pre-trained patch embedding is resized (FlexiViT, arXiv 2212.08013); a third
# doubling in the head keeps the masks at stride 4.
model = dict(backbone=dict(patch_size=32))
