# Synthetic scenes of 64 x 64 pixels, 5 + 2 classes. Write them first:
#   python tools/dataset_converters/make_scenes.py data/scenes
#
# Another data root or crop size: see detection.py.
_base_ = './panoptic.py'
from eomt_mm.crop_size import set_crop_size

set_crop_size(_base_, (64, 64))
dataset_type = 'eomt_mm.ScenesPanopticDataset'
data_root = 'data/scenes/ADEChallengeData2016'
train_pipeline = [
    {{_base_.load_image}},
    {{_base_.load_annotations}},
    # The scenes have the size of the crop, and colours at random: flipping is enough.
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='panoptic_training.json',
        data_prefix=dict(img='images/training', seg='panoptic/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='panoptic_validation.json',
        data_prefix=dict(img='images/validation', seg='panoptic/validation'),
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    ann_file=data_root + '/panoptic_validation.json',
    seg_prefix=data_root + '/panoptic/validation',
)
test_evaluator = val_evaluator
