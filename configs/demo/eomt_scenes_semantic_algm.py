# The small EoMT of eomt_scenes_semantic.py, tested with ALGM token merging. Nothing is
# trained: it takes the demo's checkpoint.
#
#   python tools/test.py configs/demo/eomt_scenes_semantic_algm.py \
#       work_dirs/demo/iter_3000.pth
#
# 64 patches are few to merge: this shows that it works, not that it pays.
_base_ = './eomt_scenes_semantic.py'
model = dict(
    backbone=dict(
        token_merging=dict(
            type='eomt_mm.ALGM',
            threshold=0.9,
            local_block=1,
            global_block=3,
            policy='min',
        )
    )
)
