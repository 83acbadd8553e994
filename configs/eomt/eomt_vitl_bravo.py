# EoMT-L (DINOv2) trained on Cityscapes (eomt_vitl_cityscapes.py), tested on BRAVO.
#
#   python tools/analysis_tools/bravo_submission.py configs/eomt/eomt_vitl_bravo.py \
#       CHECKPOINT --out submission
#
# mIoU out of distribution 77.2 (quoted, arXiv 2503.19108 Table 8); AUPRC of unknown
# objects 89.7 (quoted, Table E). Neither was measured with this code.
_base_ = './eomt_vitl_cityscapes.py'
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
