"""COCO-Stuff and Pascal VOC, as their releases lie on disk."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from eomt_mm.datasets.semantic import COCO_STUFF_VALUES
from eomt_mm.errors import UserError


def save(array, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if options:
        picture.putpalette(options['palette'])
    picture.save(path)


@pytest.fixture
def stuff(tmp_path):
    """A photo, and a map with every value that a byte can hold."""
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save(np.full((16, 16, 3), 90, np.uint8), tmp_path / 'val2017/1.jpg')
    save(labels, tmp_path / 'stuffthingmaps/val2017/1.png')
    return tmp_path


def test_released_maps_of_coco_stuff(stuff, build):
    (item,) = build(stuff, 'val', config='coco_stuff164k')
    labels = item['data_samples'].gt_sem_seg.data.flatten().tolist()
    assert [labels.index(i) for i in range(171)] == list(COCO_STUFF_VALUES)
    assert labels.count(255) == 256 - 171
    # Of COCO's categories: person, potted plant, toothbrush, banner, wood; no class 12.
    places = dict.fromkeys((0, 63, 89, 91, 181))
    assert {v: labels[v] for v in places} == {0: 0, 63: 58, 89: 79, 91: 80, 181: 170}
    assert labels[11] == 255


def test_the_table_is_mmsegs(stuff, build):
    """Names at the values that the release gives them."""
    dataset = build(stuff, 'val', config='coco_stuff164k')
    classes = dataset.metainfo['classes']
    named = {COCO_STUFF_VALUES[i]: name for i, name in enumerate(classes)}
    # labels.txt of the release, counted from 1: 64 potted plant, 92 banner, 149 road.
    expected = {63: 'potted plant', 91: 'banner', 148: 'road', 181: 'wood'}
    assert {value: named[value] for value in expected} == expected


def test_some_classes_of_coco_stuff(stuff, build):
    chosen = dict(classes=('wood', 'person'))
    (item,) = build(stuff, 'val', config='coco_stuff164k', metainfo=chosen)
    labels = item['data_samples'].gt_sem_seg.data.flatten().tolist()
    assert labels[181] == 0 and labels[0] == 1 and labels.count(255) == 254


def test_maps_that_mmseg_has_converted(stuff, build):
    save(np.full((16, 16), 170, np.uint8), stuff / 'stuffthingmaps/val2017/1_x.png')
    dataset = build(stuff, 'val', config='coco_stuff164k', seg_map_suffix='_x.png')
    assert (dataset[0]['data_samples'].gt_sem_seg.data == 170).all()


@pytest.fixture
def voc(tmp_path):
    """Two photos, of which the list for validation names one."""
    labels = np.zeros((20, 30), np.uint8)
    labels[5:], labels[4] = 20, 255  # a monitor with a void border
    for name in ('2007_000033', '2007_000042'):
        save(np.full((20, 30, 3), 90, np.uint8), tmp_path / f'JPEGImages/{name}.jpg')
        path = tmp_path / f'SegmentationClass/{name}.png'
        save(labels, path, palette=list(range(256)) * 3)
    names = tmp_path / 'ImageSets/Segmentation/val.txt'
    names.parent.mkdir(parents=True)
    names.write_text('2007_000042\n')
    return tmp_path


def test_pascal_voc(voc, build):
    dataset = build(voc, 'val', config='pascal_voc12')
    (item,) = dataset
    assert len(dataset.metainfo['classes']) == 21
    assert item['data_samples'].img_path.endswith('2007_000042.jpg')
    labels = item['data_samples'].gt_sem_seg.data
    assert labels.unique().tolist() == [0, 20, 255]  # indices, not colours


def test_a_missing_list_of_pascal_voc_is_one_line(voc, build):
    with pytest.raises(UserError, match=r'train\.txt does not exist: .*VOC2012'):
        build(voc, 'train', config='pascal_voc12')


@pytest.mark.parametrize('name', ['coco_stuff164k', 'pascal_voc12'])
def test_pipelines_are_the_shared_ones(root, name):
    own, shared = (
        Config.fromfile(root / f'configs/_base_/datasets/{file}.py')
        for file in (name, 'semantic')
    )
    for split in ('train', 'val'):
        loader = f'{split}_dataloader'
        assert own[loader].dataset.pipeline == shared[loader].dataset.pipeline
