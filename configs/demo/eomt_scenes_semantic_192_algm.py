# The small EoMT of eomt_scenes_semantic_192.py, tested with ALGM token merging. Nothing
# is trained: it takes the checkpoint of that config.
#
#   python tools/test.py configs/demo/eomt_scenes_semantic_192_algm.py \
#       work_dirs/eomt_scenes_semantic_192/iter_3000.pth
#
# A threshold for that checkpoint:
#   python tools/analysis_tools/calibrate_algm.py \
#       configs/demo/eomt_scenes_semantic_192_algm.py \
#       work_dirs/eomt_scenes_semantic_192/iter_3000.pth --out work_dirs/algm.json
_base_ = './eomt_scenes_semantic_192.py'
model = dict(
    backbone=dict(
        token_merging=dict(
            type='eomt_mm.ALGM',
            threshold=0.93,
            local_block=1,
            global_block=3,
            policy='group',
            proportional_attention=True,
        )
    )
)
