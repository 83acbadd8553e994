# EoMT-L (DINOv3) on COCO instances, 80 classes, 640 x 640, 12 epochs.
#
#   tools/dist_train.sh configs/eomt/eomt_dinov3_vitl_coco_instance_640.py 4 --amp
#   python tools/test.py configs/eomt/eomt_dinov3_vitl_coco_instance_640.py CHECKPOINT
#
# Hardware: 4 GPUs x 4 images. segm AP 45.9 (quoted, the authors' model zoo; not
# measured with this code). 314,978,385 parameters.
_base_ = [
    '../_base_/models/eomt_vitl_panoptic.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/eomt_dinov3.py',
    '../_base_/default_runtime_det.py',
]
model = dict(
    backbone=dict(
        arch='vit_large_patch16_dinov3_qkvb.lvd1689m', img_size={{_base_.crop_size}}
    ),
    panoptic_head=dict(num_things_classes=80),
    test_cfg=dict(panoptic_on=False, instance_on=True),
)
# 117,266 images / 16 = 7,329 iterations an epoch; 12 epochs are 87,948. The published
# annealing steps are those of panoptic segmentation with DINOv2, the first block's too,
# and belong to 88,692.
train_cfg = dict(max_iters=88692, val_interval=14782)
default_hooks = dict(
    checkpoint=dict(interval=14782, save_best='coco/segm_mAP', rule='greater')
)
