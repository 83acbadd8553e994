# Step (2) of the ladder, without pixel decoder, with DINOv2 ViT-L on COCO panoptic, 133
# classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step2_vitl_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/ladder/step2_vitl_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 56.9 (quoted, arXiv 2503.19108 Table 1; not measured
# with this code). 337,211,782 parameters.
_base_ = './step1_vitl_coco_panoptic_640.py'
model = dict(
    panoptic_head=dict(
        pixel_decoder=dict(_delete_=True, type='eomt_mm.LinearPixelDecoder')
    )
)
