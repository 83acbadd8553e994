# The small EoMT of eomt_scenes_semantic.py with patches of 16 pixels instead of 8: a
# quarter of the tokens. What that costs and gains: docs/model_zoo.md.
#
#   python tools/dataset_converters/make_scenes.py data/scenes
#   python tools/train.py configs/demo/eomt_scenes_semantic_patch16.py
_base_ = './eomt_scenes_semantic.py'
model = dict(backbone=dict(patch_size=16))
