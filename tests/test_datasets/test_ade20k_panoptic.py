"""ADE20K's two orders of classes, and the converter of its panoptic annotations."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as run_lengths

from eomt_mm.datasets.ade20k_panoptic import (
    RELEASE_LABELS,
    STUFF,
    THINGS,
    panoptic_map,
    things_first,
)
from eomt_mm.errors import UserError
from eomt_mm.evaluation import rgb2id
from eomt_mm.registry import has_mmdet

with_mmdet = pytest.mark.skipif(not has_mmdet(), reason='needs MMDetection')
WALL, BUILDING, SKY, BED, WINDOW = 0, 1, 2, 7, 8  # labels of the release
FLAG = 149


# The order of the classes


def test_is_a_permutation():
    assert (len(THINGS), len(STUFF)) == (100, 50)
    assert sorted(RELEASE_LABELS) == list(range(150))
    assert list(THINGS) == sorted(THINGS) and list(STUFF) == sorted(STUFF)


@with_mmdet
def test_names_and_colours_of_mmdet():
    """MMDet has the same classes in both orders, with the release's colours."""
    from mmdet.datasets import ADE20KInstanceDataset, ADE20KPanopticDataset
    from mmdet.datasets.ade20k import ADE20KSegDataset

    release = ADE20KSegDataset.METAINFO
    things = ADE20KInstanceDataset.METAINFO
    names = [release['classes'][label].strip() for label in RELEASE_LABELS]
    assert names[:100] == list(things['classes'])
    assert [release['palette'][label] for label in THINGS] == things['palette']

    panoptic = ADE20KPanopticDataset.METAINFO
    assert panoptic['classes'] == panoptic['thing_classes'] + panoptic['stuff_classes']
    stuff = zip(names[100:], panoptic['stuff_classes'], strict=True)
    others = {a: b for a, b in stuff if not b.startswith(a)}
    assert others == {'swimming pool': 'pool', 'waterfall': 'falls'}


def test_things_and_stuff_of_real_annotations(real_data):
    path = real_data / 'ade20k_panoptic_derived/ADEChallengeData2016'
    truth = json.loads((path / 'ade20k_panoptic_val.json').read_text())
    things = [c['id'] for c in truth['categories'] if c['isthing']]
    assert things == list(THINGS)


def test_class_head():
    weight = torch.arange(151 * 2).view(151, 2)
    permuted = things_first(weight)
    # First and last thing: bed, flag. First and last stuff: wall, shower.
    for row, label in ((0, BED), (99, FLAG), (100, WALL), (149, 145), (150, 150)):
        assert torch.equal(permuted[row], weight[label])
    assert torch.equal(permuted.sort(0).values, weight)
    with pytest.raises(UserError, match='134 rows; expected 151'):
        things_first(torch.zeros(134))


# The segments of an image


def example():
    """A semantic map, and an instance map with two beds and a window."""
    semantic = np.zeros((4, 6), np.uint8)
    semantic[0] = SKY + 1
    semantic[1:3, :4] = BED + 1
    semantic[1:3, 4:] = WALL + 1
    instance = np.zeros((4, 6, 3), np.uint8)
    instance[1:3, 0] = 1, 2, 9
    instance[1:3, 1] = 1, 1, 9
    instance[0, 5] = 2, 1, 9  # over the sky
    return semantic, instance


def test_segments():
    ids, labels = panoptic_map(*example())
    # MMDet: 100 wall, 102 sky; things 0 bed, 1 window.
    assert labels == [100, 102, 0, 0, 1]
    assert ids.tolist() == [
        [2, 2, 2, 2, 2, 5],
        [4, 3, 0, 0, 1, 1],  # a bed without an instance is void
        [4, 3, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0],
    ]


def test_extreme_labels():
    semantic = np.array([[150, 146, 0]], np.uint8)  # flag, shower
    instance = np.array([[[100, 255, 0], [0, 0, 0], [0, 0, 0]]], np.uint8)
    ids, labels = panoptic_map(semantic, instance)
    assert (ids.tolist(), labels) == ([[2, 1, 0]], [149, 99])


def test_nothing_annotated():
    ids, labels = panoptic_map(np.zeros((2, 2), 'u1'), np.zeros((2, 2, 3), 'u1'))
    assert (ids.tolist(), labels) == ([[0, 0], [0, 0]], [])


def test_same_number_in_two_classes_is_two_instances():
    semantic, instance = np.zeros((1, 2), np.uint8), np.zeros((1, 2, 3), np.uint8)
    instance[0] = (1, 1, 0), (2, 1, 0)
    ids, labels = panoptic_map(semantic, instance)
    assert (ids.tolist(), labels) == ([[1, 2]], [0, 1])


# The converter


@pytest.fixture
def converter(tool):
    return tool('dataset_converters/ade20k_panoptic')


@pytest.fixture
def release(tmp_path):
    """The files of a release: two training images and one for validation."""

    def save(folder, split, name, array, kind):
        path = tmp_path / folder / split
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path / f'{name}.{kind}')

    semantic, instance = example()
    for split, count in (('training', 2), ('validation', 1)):
        for index in range(count):
            name = f'ADE_{split[:5]}_{index:08d}'
            photo = np.full((*semantic.shape, 3), 100, np.uint8)
            save('images', split, name, photo, 'jpg')
            save('annotations', split, name, semantic, 'png')
            save('annotations_instance', split, name, instance, 'png')
    return tmp_path


def contents(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


@with_mmdet
@pytest.mark.parametrize('workers', [1, 2])
def test_files(converter, release, workers):
    before = contents(release)
    converter.main([str(release), '--workers', str(workers)])
    written = sorted(set(contents(release)) - set(before))
    assert written == [
        'ade20k_instance_train.json',
        'ade20k_instance_val.json',
        'ade20k_panoptic_train.json',
        'ade20k_panoptic_train/ADE_train_00000000.png',
        'ade20k_panoptic_train/ADE_train_00000001.png',
        'ade20k_panoptic_val.json',
        'ade20k_panoptic_val/ADE_valid_00000000.png',
    ]
    panoptic = json.loads((release / 'ade20k_panoptic_train.json').read_text())
    first, second = panoptic['annotations']
    assert first['segments_info'][:3] == [
        dict(id=1, category_id=100, area=4, bbox=[4, 1, 2, 2], iscrowd=0),
        dict(id=2, category_id=102, area=5, bbox=[0, 0, 5, 1], iscrowd=0),
        dict(id=3, category_id=0, area=2, bbox=[1, 1, 1, 2], iscrowd=0),
    ]
    ids = {segment['id'] for segment in first['segments_info']}
    assert ids.isdisjoint(segment['id'] for segment in second['segments_info'])
    assert panoptic['images'][1] == dict(
        id='ADE_train_00000001', file_name='ADE_train_00000001.jpg', width=6, height=4
    )
    categories = panoptic['categories']
    assert categories[0] == dict(id=0, name='bed', isthing=1)
    assert categories[100] == dict(id=100, name='wall', isthing=0)

    for annotation in panoptic['annotations']:
        png = release / 'ade20k_panoptic_train' / annotation['file_name']
        found, areas = np.unique(rgb2id(np.array(Image.open(png))), return_counts=True)
        listed = {0: 4 + 6} | {s['id']: s['area'] for s in annotation['segments_info']}
        assert dict(zip(found.tolist(), areas.tolist(), strict=True)) == listed

    instances = json.loads((release / 'ade20k_instance_train.json').read_text())
    assert [a['category_id'] for a in instances['annotations'][:3]] == [7, 7, 8]
    assert len({a['id'] for a in instances['annotations']}) == 6
    assert min(a['id'] for a in instances['annotations']) > 0
    mask = run_lengths.decode(instances['annotations'][0]['segmentation'])
    assert np.argwhere(mask).tolist() == [[1, 1], [2, 1]]


@with_mmdet
def test_mmdet_reads_it(converter, release):
    from mmdet.datasets import ADE20KInstanceDataset, ADE20KPanopticDataset

    from eomt_mm.evaluation import provide_panopticapi

    provide_panopticapi()
    converter.main([str(release), '--workers', '1'])
    pipeline = [
        dict(type='mmdet.LoadImageFromFile'),
        dict(type='mmdet.LoadPanopticAnnotations'),
    ]
    dataset = ADE20KPanopticDataset(
        data_root=str(release),
        ann_file='ade20k_panoptic_train.json',
        data_prefix=dict(img='images/training', seg='ade20k_panoptic_train'),
        pipeline=pipeline,
    )
    assert len(dataset) == 2
    for sample in dataset:
        assert sample['gt_bboxes_labels'].tolist() == [0, 0, 1]  # bed, bed, window
        assert sample['gt_masks'].masks[:, 1, :2].tolist() == [[0, 1], [1, 0], [0, 0]]
        assert sample['gt_seg_map'].tolist() == [
            [102, 102, 102, 102, 102, 1],
            [0, 0, 255, 255, 100, 100],
            [0, 0, 255, 255, 100, 100],
            [255] * 6,
        ]

    pipeline[1] = dict(type='mmdet.LoadAnnotations', with_mask=True)
    dataset = ADE20KInstanceDataset(
        data_root=str(release),
        ann_file='ade20k_instance_train.json',
        data_prefix=dict(img='images/training'),
        pipeline=pipeline,
    )
    for sample in dataset:
        assert sample['gt_bboxes_labels'].tolist() == [0, 0, 1]
        assert sample['gt_masks'].masks[:, 1, :2].tolist() == [[0, 1], [1, 0], [0, 0]]
        assert sample['gt_bboxes'].tensor[0].tolist() == [1, 1, 2, 3]


@with_mmdet
def test_real_annotations_there_and_back(converter, real_data, tmp_path):
    """The release's maps, rebuilt from a panoptic truth, give that truth again."""
    source = real_data / 'ade20k_panoptic_derived/ADEChallengeData2016'
    truth = json.loads((source / 'ade20k_panoptic_val.json').read_text())
    for folder in ('images', 'annotations', 'annotations_instance'):
        for split in ('training', 'validation'):
            (tmp_path / folder / split).mkdir(parents=True)
    for annotation in truth['annotations']:
        png, stem = annotation['file_name'], annotation['image_id']
        ids = rgb2id(np.array(Image.open(source / 'ade20k_panoptic_val' / png)))
        semantic, instance = np.zeros(ids.shape, 'u1'), np.zeros((*ids.shape, 3), 'u1')
        for number, segment in enumerate(annotation['segments_info'], start=1):
            label, mask = segment['category_id'], ids == segment['id']
            semantic[mask] = label + 1
            if label in THINGS:
                instance[mask] = THINGS.index(label) + 1, number, 0
        for split in ('training', 'validation'):
            jpg = tmp_path / 'images' / split / f'{stem}.jpg'
            jpg.symlink_to(source / f'images/validation/{stem}.jpg')
            Image.fromarray(semantic).save(tmp_path / 'annotations' / split / png)
            folder = tmp_path / 'annotations_instance' / split
            Image.fromarray(instance).save(folder / png)

    converter.main([str(tmp_path), '--workers', '1'])

    result = json.loads((tmp_path / 'ade20k_panoptic_val.json').read_text())

    def facts(segment, label):
        return label, segment['area'], segment['bbox']

    for ours, theirs in zip(result['annotations'], truth['annotations'], strict=True):
        assert ours['image_id'] == theirs['image_id']
        found = [
            facts(s, RELEASE_LABELS[s['category_id']]) for s in ours['segments_info']
        ]
        expected = [facts(s, s['category_id']) for s in theirs['segments_info']]
        assert sorted(found) == sorted(expected)
    result = json.loads((tmp_path / 'ade20k_instance_val.json').read_text())
    truth = json.loads((source / 'ade20k_instance_val.json').read_text())
    assert result['categories'] == truth['categories']
    keys = ('image_id', 'category_id', 'area', 'bbox')
    assert len(truth['annotations']) == 66
    assert sorted(
        [a[key] for key in keys] + [a['segmentation']['counts']]
        for a in result['annotations']
    ) == sorted(
        [a[key] for key in keys] + [a['segmentation']['counts']]
        for a in truth['annotations']
    )


@with_mmdet
def test_again_does_nothing_and_overwrite_replaces(converter, release, capsys):
    converter.main([str(release), '--workers', '1'])
    before = contents(release)
    stamp = (release / 'ade20k_panoptic_val.json').stat().st_mtime_ns
    capsys.readouterr()
    converter.main([str(release)])
    assert 'already' in capsys.readouterr().out
    assert (release / 'ade20k_panoptic_val.json').stat().st_mtime_ns == stamp

    (release / 'ade20k_panoptic_val/old.png').touch()
    (release / 'ade20k_instance_val.json').unlink()
    with pytest.raises(UserError, match='but not all of .*--overwrite'):
        converter.main([str(release)])
    converter.main([str(release), '--workers', '1', '--overwrite'])
    assert contents(release) == before


def break_png(path):
    path.write_bytes(path.read_bytes()[:50])


def set_pixel(value):
    def change(path):
        array = np.array(Image.open(path))
        array[0, 0] = value
        Image.fromarray(array).save(path)

    return change


def shrink(path):
    Image.fromarray(np.array(Image.open(path))[:2]).save(path)


def to_grey(path):
    Image.open(path).convert('L').save(path)


@with_mmdet
@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize(
    ('folder', 'change', 'message'),
    [
        ('annotations', set_pixel(151), 'label 151 in the semantic map; .* 0 .* 150'),
        ('annotations_instance', set_pixel((101, 1, 0)), 'class 101 .* 1 to 100'),
        ('annotations_instance', set_pixel((0, 1, 0)), 'class 0 of an instance'),
        ('annotations', shrink, r'shape \(2, 6\).*expected \(4, 6\)'),
        ('annotations_instance', to_grey, r'shape \(4, 6\).*expected \(4, 6, 3\)'),
        ('annotations', break_png, 'cannot read'),
        ('images', break_png, 'cannot read'),
        ('annotations', lambda path: path.unlink(), 'lacks the maps of 1 of 2 images'),
    ],
)
def test_errors_leave_nothing_behind(
    converter, release, folder, change, message, workers
):
    (path,) = (release / folder / 'training').glob('*0001.*')
    change(path)
    before = contents(release)
    with pytest.raises(UserError, match=message) as error:
        converter.main([str(release), '--workers', str(workers)])
    assert path.stem in str(error.value)
    assert contents(release) == before
    assert not list(release.glob('.*'))


@with_mmdet
def test_missing_folders(converter, release, tmp_path):
    (release / 'annotations_instance').rename(release / 'elsewhere')
    with pytest.raises(
        UserError, match='annotations_instance/training is missing.*tar'
    ):
        converter.main([str(release)])
    with pytest.raises(UserError, match='images/training is missing; give the folder'):
        converter.main([str(release / 'images')])
