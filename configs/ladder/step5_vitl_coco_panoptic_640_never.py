# Step (5) of the ladder, without masking = EoMT, with DINOv2 ViT-L on COCO panoptic,
# 133 classes, 640 x 640, never masked.
#
#   tools/dist_train.sh configs/ladder/step5_vitl_coco_panoptic_640_never.py 4 --amp
#   python tools/test.py configs/ladder/step5_vitl_coco_panoptic_640_never.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 53.2 (quoted, arXiv 2503.19108 Table 7; not measured
# with this code). 316,695,686 parameters.
_base_ = '../eomt/eomt_vitl_coco_panoptic_640.py'
# Nothing is predicted between the blocks, so nothing is masked or supervised there.
model = dict(backbone=dict(deep_supervision=False))
custom_hooks = [
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
