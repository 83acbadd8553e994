"""Cityscapes' segments, and the converter of its panoptic and instance annotations."""

import json

import numpy as np
import pytest
from PIL import Image

from eomt_mm.datasets.cityscapes_labels import LABELS, THINGS, segments_of
from eomt_mm.errors import UserError
from eomt_mm.registry import has_mmdet
from tiny_models import on_data

with_mmdet = pytest.mark.skipif(not has_mmdet(), reason='needs MMDetection')
ROAD, SKY, CAR, PERSON, CARAVAN, EGO = 7, 23, 26, 24, 29, 1
NAMES = ('aachen/aachen_000000_000019', 'ulm/ulm_000000_000019')


def example():
    """Two cars, a group of persons, road, sky, and what does not count."""
    stored = np.full((8, 16), ROAD, np.uint16)
    stored[:3] = SKY
    stored[3:5, :4] = CAR * 1000
    stored[3:5, 4:6] = CAR * 1000 + 1
    stored[4, 10:12] = PERSON
    stored[5, 10:12] = CARAVAN * 1000 + 3
    stored[7] = EGO
    return stored


# The segments of an image


def test_classes_are_mmsegs_and_mmdets():
    """The same 19 names and colours; MMDetection's 8 things in its order."""
    datasets = pytest.importorskip('mmseg.datasets')
    meta = datasets.CityscapesDataset.METAINFO
    release = sorted(LABELS, key=lambda label: label.value)
    assert [label.name for label in release] == list(meta['classes'])
    assert [list(label.colour) for label in release] == meta['palette']
    if has_mmdet():
        from mmdet.datasets import CityscapesDataset

        things = CityscapesDataset.METAINFO
        assert tuple(label.name for label in THINGS) == things['classes']
        assert [label.colour for label in THINGS] == things['palette']


def test_segments():
    ids, classes, crowds = segments_of(example())
    names = [LABELS[label].name for label in classes]
    assert names == ['road', 'sky', 'person', 'car', 'car']
    assert crowds == [False, False, True, False, False]
    assert ids[0].tolist() == [2] * 16
    assert ids[4].tolist() == [4] * 4 + [5] * 2 + [1] * 4 + [3] * 2 + [1] * 4
    assert ids[5, 9:13].tolist() == [1, 0, 0, 1]  # a caravan is void
    assert not ids[7].any()


@pytest.mark.parametrize(('value', 'label'), [(34, 34), (999, 999), (40000, 40)])
def test_other_labels_are_refused(value, label):
    with pytest.raises(UserError, match=f'value {value} stands for label {label}; exp'):
        segments_of(np.array([[ROAD, value]]))


# The converter


@pytest.fixture
def converter(tool):
    return tool('dataset_converters/cityscapes_panoptic')


@pytest.fixture
def release(tmp_path):
    """A tree of gtFine: two training images of two cities and one for validation."""

    def save(array, folder, split, name, suffix):
        path = tmp_path / folder / split / f'{name}{suffix}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    photo = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    for split, names in (('train', NAMES), ('val', ('munster/munster_000000_000019',))):
        for name in names:
            save(photo, 'leftImg8bit', split, name, '_leftImg8bit')
            save(example(), 'gtFine', split, name, '_gtFine_instanceIds')
    return tmp_path


def contents(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


@pytest.mark.parametrize('workers', [1, 2])
def test_files(converter, release, workers):
    before = contents(release)
    converter.main([str(release), '--workers', str(workers)])
    assert sorted(set(contents(release)) - set(before)) == [
        'cityscapes_instance_train.json',
        'cityscapes_instance_val.json',
        'cityscapes_panoptic_train.json',
        'cityscapes_panoptic_train/aachen/aachen_000000_000019.png',
        'cityscapes_panoptic_train/ulm/ulm_000000_000019.png',
        'cityscapes_panoptic_val.json',
        'cityscapes_panoptic_val/munster/munster_000000_000019.png',
    ]
    panoptic = json.loads((release / 'cityscapes_panoptic_train.json').read_text())
    assert [image['file_name'] for image in panoptic['images']] == [
        f'{name}_leftImg8bit.png' for name in NAMES
    ]
    first, second = panoptic['annotations']
    assert first['segments_info'][2:4] == [
        dict(id=3, category_id=0, area=2, bbox=[10, 4, 2, 1], iscrowd=1),
        dict(id=4, category_id=2, area=8, bbox=[0, 3, 4, 2], iscrowd=0),
    ]
    ids = {segment['id'] for segment in first['segments_info']}
    assert ids.isdisjoint(segment['id'] for segment in second['segments_info'])
    assert panoptic['categories'][8] == dict(id=8, name='road', isthing=0)

    instances = json.loads((release / 'cityscapes_instance_train.json').read_text())
    assert len(instances['categories']) == 8
    found = [(a['category_id'], a['iscrowd']) for a in instances['annotations']]
    assert found == 2 * [(0, 1), (2, 0), (2, 0)]

    converter.main([str(release)])  # does nothing
    (release / 'cityscapes_instance_val.json').unlink()
    with pytest.raises(UserError, match='but not all of .*--overwrite'):
        converter.main([str(release)])


def set_pixel(path):
    array = np.array(Image.open(path))
    array[0, 0] = 77
    Image.fromarray(array).save(path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (set_pixel, 'ulm_.*_gtFine_instanceIds.png: the value 77 stands for label 77'),
        (lambda path: path.write_bytes(b'PNG'), 'cannot read .*ulm_'),
        (lambda path: path.unlink(), 'lacks the maps of 1 of 2 images, such as ulm_'),
        (
            lambda path: Image.fromarray(example()[:4]).save(path),
            r'ulm_.* is of shape \(4, 16\) .*expected \(8, 16\)',
        ),
        (
            lambda path: path.parents[1].rename(path.parents[2] / 'elsewhere'),
            'gtFine/train is missing: give the folder in which gtFine_trainvaltest.zip',
        ),
    ],
)
def test_errors_leave_nothing_behind(converter, release, change, message):
    change(release / f'gtFine/train/{NAMES[1]}_gtFine_instanceIds.png')
    before = contents(release)
    with pytest.raises(UserError, match=message):
        converter.main([str(release), '--workers', '1'])
    assert contents(release) == before


@with_mmdet
def test_loaders_read_it(converter, release, build_coco):
    converter.main([str(release), '--workers', '1'])
    dataset, _ = build_coco('cityscapes_panoptic', release)
    (sample,) = (item['data_samples'] for item in dataset)
    labels = sample.gt_sem_seg.sem_seg[0]
    # Road is class 8, sky 18; groups and what does not count are void.
    assert labels[0].tolist() == [18] * 16 and labels[6].tolist() == [8] * 16
    assert labels[4, 10:12].tolist() == [255] * 2 == labels[5, 10:12].tolist()
    assert sample.gt_instances.labels.tolist() == [2, 2]

    dataset, _ = build_coco('cityscapes_instance', release)
    (sample,) = (item['data_samples'] for item in dataset)
    assert sample.gt_instances.labels.tolist() == [2, 2]
    assert sample.ignored_instances.labels.tolist() == [0]


@with_mmdet
@pytest.mark.parametrize('task', ['panoptic', 'instance'])
def test_the_config_trains_and_tests(
    converter, release, run_tool, root, tmp_path, task
):
    converter.main([str(release), '--workers', '1'])
    cfg = on_data(root / f'configs/eomt/eomt_vitl_cityscapes_{task}.py', release)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    config, run = tmp_path / f'tiny_{task}.py', tmp_path / 'run'
    cfg.dump(config)
    options = [
        'crop_size=(32,64)',
        'model.backbone.arch=vit_tiny_patch16_224',
        'model.backbone.timm_args.embed_dim=32',
        'model.backbone.timm_args.depth=5',
        'model.backbone.timm_args.num_heads=4',
        'model.backbone.pretrained=False',
        'model.panoptic_head.criterion.num_points=16',
        'train_dataloader.batch_size=2',
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        'param_scheduler.warmup=(1,1)',
        'default_hooks.checkpoint.interval=2',
    ]
    run_tool('train', config, '--work-dir', run, '--cfg-options', *options)
    scores = run_tool(
        'test',
        *(config, run / 'iter_2.pth', '--work-dir', run / 'test'),
        *('--cfg-options', *options),
    )
    key = dict(panoptic='coco_panoptic/PQ', instance='coco/segm_mAP')[task]
    assert 0 <= scores[key] <= 100
