# Step (0) of the ladder, ViT-Adapter + Mask2Former, with DINOv2 ViT-L on COCO panoptic,
# 133 classes, 640 x 640, masks annealed.
#
#   tools/dist_train.sh configs/ladder/step0_vitl_coco_panoptic_640_annealed.py 4 --amp
#   python tools/test.py configs/ladder/step0_vitl_coco_panoptic_640_annealed.py \
#       CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 56.8 (quoted, arXiv 2503.19108 Table C; not measured
# with this code). 348,674,054 parameters.
_base_ = './step0_vitl_coco_panoptic_640.py'
custom_hooks = [
    dict(type='eomt_mm.MaskAnnealingHook'),
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
# What is tested has no masks; in training the hook sets them.
model = dict(panoptic_head=dict(mask_probs=[0.0] * 9))
