# COCO-Stuff 164k, 171 classes, https://github.com/nightrome/cocostuff
#
# The photos of COCO 2017, and the maps of stuffthingmaps_trainval2017.zip as released:
#   data/coco/{train2017,val2017}/*.jpg
#   data/coco/stuffthingmaps/{train2017,val2017}/*.png
#
# Another data root or crop size: see semantic.py.
_base_ = './semantic.py'
dataset_type = 'eomt_mm.COCOStuffDataset'
data_root = 'data/coco'
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='train2017', seg_map_path='stuffthingmaps/train2017'),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='val2017', seg_map_path='stuffthingmaps/val2017'),
    ),
)
test_dataloader = val_dataloader
