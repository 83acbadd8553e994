# EoMT-L (DINOv2) on COCO panoptic with ALGM token merging: the checkpoint of
# eomt_vitl_coco_panoptic_640.py, tested with fewer tokens. Nothing is trained.
#
#   python tools/test.py configs/eomt/eomt_vitl_coco_panoptic_640_algm.py CHECKPOINT
#
# Hardware: 1 GPU. No published score; small things may suffer, see
# docs/token_merging.md. 316,695,686 parameters.
_base_ = './eomt_vitl_coco_panoptic_640.py'
model = dict(
    backbone=dict(
        token_merging=dict(
            type='eomt_mm.ALGM',
            # ALGM's own for a ViT-L trained with it, as is the second block: a start.
            # Each model has its own: tools/analysis_tools/calibrate_algm.py finds it.
            threshold=0.95,
            local_block=1,
            global_block=7,
            # Photos are padded to a square by shares that differ, and padding merges:
            # those with much of it are not to wait for the others of their batch.
            policy='group',
        )
    )
)
