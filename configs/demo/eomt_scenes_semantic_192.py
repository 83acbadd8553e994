# The small EoMT of eomt_scenes_semantic.py on scenes three times as large: 576 patches
# instead of 64, enough for token merging to pay (eomt_scenes_semantic_192_algm.py).
#
#   python tools/dataset_converters/make_scenes.py data/scenes_192 --size 192 \
#       --train 2000
#   python tools/train.py configs/demo/eomt_scenes_semantic_192.py
_base_ = './eomt_scenes_semantic.py'
data_root = 'data/scenes_192/ADEChallengeData2016'
crop_size = (192, 192)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(img_size=crop_size),
    # A mask has 48 x 48 cells.
    decode_head=dict(criterion=dict(num_points=1764)),
)
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.DecodeSixteenBit'),
    dict(type='eomt_mm.ResizeShortSide', size=crop_size[0]),
    dict(type='LoadAnnotations'),
    dict(type='eomt_mm.CheckLabelSize'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=8, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
# 2,000 scenes / 8 = 250 iterations an epoch; 12 epochs.
train_cfg = dict(max_iters=3000, val_interval=500)
