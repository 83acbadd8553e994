# EoMT-L (DINOv2) on Cityscapes with ALGM token merging: the checkpoint of
# eomt_vitl_cityscapes.py, tested with fewer tokens. Nothing is trained.
#
#   python tools/test.py configs/eomt/eomt_vitl_cityscapes_algm.py CHECKPOINT
#
# The same without this file:
#   python tools/test.py configs/eomt/eomt_vitl_cityscapes.py CHECKPOINT --cfg-options \
#       model.backbone.token_merging.type=eomt_mm.ALGM \
#       model.backbone.token_merging.threshold=0.95
#
# Hardware: 1 GPU. mIoU 84.2 (quoted, arXiv 2503.19108 Table 9; not measured with this
# code), where 4350 GFLOPs become 1183; blocks and threshold are not given there.
# 319,032,340 parameters.
_base_ = './eomt_vitl_cityscapes.py'
model = dict(
    backbone=dict(
        token_merging=dict(
            type='eomt_mm.ALGM',
            # ALGM's own for a ViT-L trained with it, as is the second block: a start.
            # Each model has its own: tools/analysis_tools/calibrate_algm.py finds it.
            threshold=0.95,
            local_block=1,
            global_block=7,
            policy='min',
        )
    )
)
