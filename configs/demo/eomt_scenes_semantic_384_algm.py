# The small EoMT of eomt_scenes_semantic_384.py, tested with ALGM token merging. Nothing
# is trained: it takes the checkpoint of that config.
#
#   python tools/test.py configs/demo/eomt_scenes_semantic_384_algm.py \
#       work_dirs/eomt_scenes_semantic_384/iter_500.pth
_base_ = './eomt_scenes_semantic_384.py'
model = dict(
    backbone=dict(
        token_merging=dict(
            type='eomt_mm.ALGM',
            # Each merge leaves six tenths of the tokens it finds, in every image.
            keep=(0.6, 0.6),
            local_block=1,
            global_block=2,
            proportional_attention=True,
        )
    )
)
