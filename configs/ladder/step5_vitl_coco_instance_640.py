# Step (5) of the ladder, without masking = EoMT, with DINOv2 ViT-L on COCO instances,
# 80 classes, 640 x 640.
#
#   tools/dist_train.sh configs/ladder/step5_vitl_coco_instance_640.py 4 --amp
#   python tools/test.py configs/ladder/step5_vitl_coco_instance_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. segm AP 45.2 (quoted, arXiv 2503.19108 Table 6; not
# measured with this code). 316,641,361 parameters.
_base_ = '../eomt/eomt_vitl_coco_instance_640.py'
