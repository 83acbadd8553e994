# Step (3) of the ladder, without multi-scale features, with DINOv2 ViT-L on COCO
# panoptic, 133 classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step3_vitl_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/ladder/step3_vitl_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 56.7 (quoted, arXiv 2503.19108 Table 1; not measured
# with this code). 328,273,286 parameters.
_base_ = './step2_vitl_coco_panoptic_640.py'
model = dict(
    neck=dict(strides=(4, 16)),
    panoptic_head=dict(num_transformer_feat_level=1),
)
