# The small EoMT of eomt_scenes_semantic_192.py, fine-tuned on scenes of twice the side:
# 2,304 patches, whose attention is most of the work, as in the paper's large images.
# Token merging pays here (eomt_scenes_semantic_384_algm.py).
#
#   python tools/dataset_converters/make_scenes.py data/scenes_384 --size 384 \
#       --train 2000
#   python tools/train.py configs/demo/eomt_scenes_semantic_384.py
_base_ = './eomt_scenes_semantic_192.py'
from eomt_mm.crop_size import set_crop_size

set_crop_size(_base_, (384, 384))
data_root = 'data/scenes_384/ADEChallengeData2016'
load_from = 'work_dirs/eomt_scenes_semantic_192/iter_3000.pth'
# A mask has 96 x 96 cells.
model = dict(decode_head=dict(criterion=dict(num_points=4096)))
train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = dict(warmup=(10, 20))
train_cfg = dict(max_iters=500, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=100))
