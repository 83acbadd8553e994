# Step (0) of the ladder, ViT-Adapter + Mask2Former with DINOv2 ViT-L, trained on
# Cityscapes (step0_vitl_cityscapes.py), tested on BRAVO.
#
#   python tools/analysis_tools/bravo_submission.py configs/ladder/step0_vitl_bravo.py \
#       CHECKPOINT --out submission
#
# mIoU out of distribution 78.0 (quoted, arXiv 2503.19108 Table 8); AUPRC of unknown
# objects 68.7 (quoted, Table E). Neither was measured with this code.
_base_ = './step0_vitl_cityscapes.py'
data_root = 'data/bravo/'
model = dict(test_cfg=dict(confidence='class_score'))
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='eomt_mm.BravoDataset',
        data_root=data_root,
        test_mode=True,
        pipeline={{_base_.test_pipeline}},
    )
)
