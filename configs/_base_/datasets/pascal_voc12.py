# Pascal VOC 2012, 21 classes with the background,
# http://host.robots.ox.ac.uk/pascal/VOC/voc2012
#
# Another data root or crop size: see semantic.py.
# With SBD's annotations: a list of all names, and their maps in one folder:
#   --cfg-options \
#       train_dataloader.dataset.ann_file=ImageSets/Segmentation/trainaug.txt \
#       train_dataloader.dataset.data_prefix.seg_map_path=SegmentationClassAug
_base_ = './semantic.py'
dataset_type = 'eomt_mm.PascalVOCDataset'
data_root = 'data/VOCdevkit/VOC2012'
data_prefix = dict(img_path='JPEGImages', seg_map_path='SegmentationClass')
train_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        ann_file='ImageSets/Segmentation/train.txt',
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=data_prefix,
        ann_file='ImageSets/Segmentation/val.txt',
    ),
)
test_dataloader = val_dataloader
