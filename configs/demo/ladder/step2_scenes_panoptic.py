# Step (2) of the ladder in miniature, without pixel decoder.
#
#   make reproduce
#   python tools/train.py configs/demo/ladder/step2_scenes_panoptic.py
_base_ = './step1_scenes_panoptic.py'
model = dict(
    panoptic_head=dict(
        pixel_decoder=dict(_delete_=True, type='eomt_mm.LinearPixelDecoder')
    )
)
