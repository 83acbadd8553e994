# Step (0) of the ladder, ViT-Adapter + Mask2Former, with DINOv2 ViT-L on COCO panoptic,
# 133 classes, 640 x 640, never masked.
#
#   tools/dist_train.sh configs/ladder/step0_vitl_coco_panoptic_640_never.py 4 --amp
#   python tools/test.py configs/ladder/step0_vitl_coco_panoptic_640_never.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 54.0 (quoted, arXiv 2503.19108 Table C; not measured
# with this code). 348,674,054 parameters.
_base_ = './step0_vitl_coco_panoptic_640.py'
# Nothing is predicted between the layers, so nothing is masked or supervised there.
model = dict(panoptic_head=dict(deep_supervision=False))
