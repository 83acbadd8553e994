# The small EoMT of eomt_scenes_semantic.py on two bands of the scenes, red and blue:
# how a config takes images of any number of bands.
#
#   python tools/dataset_converters/make_scenes.py data/scenes
#   python tools/train.py configs/demo/eomt_scenes_bands.py
_base_ = './eomt_scenes_semantic.py'
from eomt_mm.bands import set_bands

set_bands(
    _base_,
    mean=[123.675, 103.53],
    std=[58.395, 57.375],
    bands=(0, 2),
    picture=(0, 2, 2),
)
