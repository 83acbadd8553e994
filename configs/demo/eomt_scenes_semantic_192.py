# The small EoMT of eomt_scenes_semantic.py on scenes three times as large: 576 patches
# instead of 64, enough for token merging to pay (eomt_scenes_semantic_192_algm.py).
#
#   python tools/dataset_converters/make_scenes.py data/scenes_192 --size 192 \
#       --train 2000
#   python tools/train.py configs/demo/eomt_scenes_semantic_192.py
_base_ = './eomt_scenes_semantic.py'
from eomt_mm.crop_size import set_crop_size

set_crop_size(_base_, (192, 192))
data_root = 'data/scenes_192/ADEChallengeData2016'
# A mask has 48 x 48 cells.
model = dict(decode_head=dict(criterion=dict(num_points=1764)))
train_dataloader = dict(batch_size=8, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
# 2,000 scenes / 8 = 250 iterations an epoch; 12 epochs.
train_cfg = dict(max_iters=3000, val_interval=500)
