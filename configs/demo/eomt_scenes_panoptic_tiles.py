# Tests what eomt_scenes_panoptic.py has trained on scenes of four times the side, with
# small things, in tiles.
#
#   python tools/dataset_converters/make_scenes.py data/scenes_256 \
#       --size 256 --small 8 --train 1 --val 200
#   python tools/test.py configs/demo/eomt_scenes_panoptic_tiles.py CHECKPOINT
#
# Without tiles the image is fitted into the network's input:
#   ... --cfg-options model.test_cfg.tiles=None \
#       test_dataloader.dataset.pipeline.2.size="(64,64)"
_base_ = './eomt_scenes_panoptic.py'
data_root = 'data/scenes_256/ADEChallengeData2016'
model = dict(test_cfg=dict(tiles=dict(overlap=0.25)))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        pipeline=[
            {{_base_.load_image}},
            {{_base_.load_annotations}},
            dict(type='eomt_mm.FitInside', size=(256, 256)),
            {{_base_.pack}},
        ],
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + '/panoptic_validation.json',
    seg_prefix=data_root + '/panoptic/validation',
)
test_evaluator = val_evaluator
