# EoMT-L (EVA-02) on COCO panoptic, 133 classes, 640 x 640, 12 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_eva02_vitl_coco_panoptic_640.py 4 --amp
#   python tools/test.py configs/eomt/eomt_eva02_vitl_coco_panoptic_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. PQ 55.5 (quoted, arXiv 2503.19108 Table 2; not
# measured with this code). 316,733,510 parameters.
_base_ = './eomt_vitl_coco_panoptic_640.py'
model = dict(
    # EVA-02 was pre-trained with the mean and deviation of CLIP.
    data_preprocessor=dict(
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    backbone=dict(arch='eva02_large_patch14_224.mim_m38m'),
)
