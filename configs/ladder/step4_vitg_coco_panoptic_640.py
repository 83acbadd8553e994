# Step (4) of the ladder, without Transformer decoder, with DINOv2 ViT-g on COCO
# panoptic, 133 classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step4_vitg_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/ladder/step4_vitg_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 57.2 (quoted, arXiv 2503.19108 Table 3; not measured
# with this code). 1,163,622,022 parameters.
_base_ = '../eomt/eomt_vitg_coco_panoptic_640.py'
# Masks stay on, in training and in testing.
model = dict(backbone=dict(mask_probs=[1.0] * 5))
custom_hooks = [
    dict(type='eomt_mm.IterationSeedHook'),
    dict(type='eomt_mm.FineTuningHook'),
]
