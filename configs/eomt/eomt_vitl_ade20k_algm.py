# EoMT-L (DINOv2) on ADE20K with ALGM token merging: the checkpoint of
# eomt_vitl_ade20k.py, tested with fewer tokens. Nothing is trained.
#
#   python tools/test.py configs/eomt/eomt_vitl_ade20k_algm.py CHECKPOINT
#
# Hardware: 1 GPU. No published score. 316,020,887 parameters.
_base_ = './eomt_vitl_ade20k.py'
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
