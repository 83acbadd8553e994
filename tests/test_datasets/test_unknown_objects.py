"""Scenes out of distribution and the layouts of data sets of unknown objects."""

import json
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from eomt_mm.crop_size import set_crop_size
from eomt_mm.datasets import LoadSemanticAnnotations, OODScenesDataset, ScenesDataset
from eomt_mm.datasets.scenes import draw_scene
from eomt_mm.datasets.scenes_ood import CORRUPTIONS, add_unknown, corrupt
from eomt_mm.datasets.unknown_objects import LAYOUTS, UnknownObjectsDataset
from eomt_mm.errors import UserError


def scene(seed=0):
    rng = np.random.default_rng(seed)
    return rng, draw_scene(rng, 64)[0]


def test_the_unknown_object_is_where_the_label_says():
    for seed in range(10):
        rng, image = scene(seed)
        before = image.copy()
        inside = add_unknown(rng, image)
        assert 0.02 < inside.mean() < 0.3
        assert (image == before)[~inside].all()
        assert (image != before)[inside].any(-1).mean() > 0.9


@pytest.mark.parametrize('kind', CORRUPTIONS)
def test_corruptions_grow_with_their_strength(kind):
    rng, image = scene()
    changes = [
        np.abs(corrupt(rng, image, kind, strength).astype(int) - image).mean()
        for strength in (1, 2, 3)
    ]
    assert 0.5 < changes[0] < changes[1] < changes[2]


# Image and label map as a release has them, its layout, and what is stored for 0, 1.
RELEASES = {
    'RoadAnomaly21': (
        'images/{}.jpg',
        'labels_masks/{}_labels_semantic.png',
        dict(),
        (0, 1),
    ),
    'RoadObstacle21': (
        'images/{}.webp',
        'labels_masks/{}_labels_semantic.png',
        dict(img_suffix='.webp'),
        (0, 1),
    ),
    'RoadAnomaly': (
        'frames/{}.jpg',
        'frames/{}.labels/labels_semantic.png',
        dict(layout='road_anomaly'),
        (1, 2),  # road, which is known, and anomaly; background is 0
    ),
    'Fishyscapes': (
        'leftImg8bit/test/04_Weg_8/{}_leftImg8bit.png',
        'fishyscapes_lostandfound/0007_{}_labels.png',
        dict(layout='fishyscapes'),
        (0, 1),
    ),
}


@pytest.fixture(params=RELEASES)
def release(request, tmp_path):
    """Two images with label maps; a painted map lies beside as in SMIYC."""
    image, labels, options, (known, unknown) = RELEASES[request.param]
    for name in ('a', 'b'):
        pixels = np.full((4, 5), 255, np.uint8)
        pixels[:3] = 0
        pixels[0] = known
        pixels[1, :2] = unknown
        for template, picture in (
            (image, np.zeros((4, 5, 3), np.uint8)),
            (labels, pixels),
        ):
            path = tmp_path / template.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        colour = str(path).replace('.png', '_color.png')
        Image.new('RGB', (5, 4)).save(colour)
    return image, labels, dict(data_root=str(tmp_path), **options)


def test_releases(release):
    *_, options = release
    dataset = UnknownObjectsDataset(**options, test_mode=True, pipeline=[])
    assert len(dataset) == 2 and len(dataset.metainfo['classes']) == 19
    expected = np.full((4, 5), 255)
    expected[:3] = 0
    expected[1, :2] = 1
    for index in range(2):
        assert (labels_of(dataset, index, (4, 5)) == expected).all()


def test_missing_and_extra_files(release, tmp_path):
    image, labels, options = release
    first = tmp_path / labels.format('a')
    renamed = tmp_path / labels.format('c')
    renamed.parent.mkdir(exist_ok=True)
    first.rename(renamed)
    by_labels = options.get('layout') == 'fishyscapes'
    wanted = 'c_leftImg8bit.png, the image of' if by_labels else 'missing label map'
    with pytest.raises(UserError, match=wanted):
        UnknownObjectsDataset(**options, pipeline=[])
    Image.new('L', (5, 4)).save(first)
    with pytest.raises(UserError, match=wanted if by_labels else 'extra label map'):
        UnknownObjectsDataset(**options, pipeline=[])


def test_a_list_names_the_images_with_labels(release, tmp_path):
    """Images without labels, as some data sets have in their test part."""
    _, labels, options = release
    (tmp_path / 'list.txt').write_text('b\n')
    options['ann_file'] = 'list.txt'
    if options.get('layout') == 'fishyscapes':
        with pytest.raises(UserError, match='name its images; leave ann_file out'):
            UnknownObjectsDataset(**options, pipeline=[])
        return
    assert len(UnknownObjectsDataset(**options, pipeline=[])) == 1
    (tmp_path / labels.format('a')).unlink()
    dataset = UnknownObjectsDataset(**options, pipeline=[])
    assert dataset.get_data_info(0)['seg_map_path'].endswith(labels.format('b'))
    del options['ann_file']
    with pytest.raises(UserError, match='ann_file may name the images'):
        UnknownObjectsDataset(**options, pipeline=[])


TINY = """
_base_ = './smiyc.py'
model = dict(
    backbone=dict(arch='vit_tiny_patch16_224', pretrained=False, num_queries=10,
                  timm_args=dict(embed_dim=32, depth=3, num_heads=4), num_blocks=2),
    decode_head=dict(embed_dims=32))
test_dataloader = dict(num_workers=0, persistent_workers=False)
"""


@pytest.mark.slow
def test_the_example_of_the_docs(release, root, tmp_path, tool):
    """The config that the page shows, on each release, with a small model."""
    *_, options = release
    page = (root / 'docs/out_of_distribution.md').read_text()
    code = re.search(r'```python\n(.*?)```', page, re.DOTALL)[1]
    code = code.replace('./eomt/', f'{root}/configs/eomt/')
    (tmp_path / 'smiyc.py').write_text(code)
    config = tmp_path / 'tiny.py'
    config.write_text(TINY)
    cfg = Config.fromfile(config)
    set_crop_size(cfg, 64)
    init_default_scope('mmseg')
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'tiny.pth')
    argv = [str(config), str(tmp_path / 'tiny.pth'), '--work-dir', str(tmp_path / 'w')]
    words = [f'test_dataloader.dataset.{k}={v}' for k, v in options.items()]
    words += ['crop_size=(64,64)']
    tool('test').main([*argv, '--cfg-options', *words])
    (scores,) = (tmp_path / 'w').rglob('*.json')
    found = json.loads(scores.read_text().splitlines()[-1])
    assert {'ood/AUROC', 'ood/AUPRC', 'ood/FPR95'} <= found.keys()


def test_an_empty_folder(tmp_path):
    for layout in LAYOUTS:
        with pytest.raises(UserError, match='data_root=DIR'):
            UnknownObjectsDataset(layout, data_root=str(tmp_path), pipeline=[])


def test_unknown_layout():
    with pytest.raises(UserError, match="'lostandfound', expected one of smiyc"):
        UnknownObjectsDataset(layout='lostandfound')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory, run_tool):
    out = tmp_path_factory.mktemp('data') / 'scenes'
    options = ('--train', 1, '--val', 2, '--ood')
    run_tool('dataset_converters/make_scenes', out, *options)
    return str(out / 'ADEChallengeData2016')


def labels_of(dataset, index, shape=(64, 64)):
    return LoadSemanticAnnotations()(
        dataset.get_data_info(index) | dict(img=np.zeros((*shape, 3)), ori_shape=shape)
    )['gt_seg_map']


def test_all_sets_of_scenes_in_one_dataset(scenes):
    dataset = OODScenesDataset(data_root=scenes, pipeline=[])
    assert len(dataset) == 2 * (1 + 12 + 1)
    plain = ScenesDataset(
        data_root=scenes,
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
        pipeline=[],
    )
    reduced = LoadSemanticAnnotations()(
        plain.get_data_info(1) | dict(img=np.zeros((64, 64, 3)), ori_shape=(64, 64))
    )['gt_seg_map']
    for index in (1, 3, 25):  # as they are, and corrupted
        assert dataset.get_data_info(index)['img_path'].endswith('000001.png')
        assert (labels_of(dataset, index) == reduced).all()
    assert set(np.unique(labels_of(dataset, 27))) == {0, 1}


def test_some_sets_of_scenes(scenes):
    dataset = OODScenesDataset(data_root=scenes, sets=['fog_3', 'unknown'], pipeline=[])
    paths = [dataset.get_data_info(i)['img_path'] for i in range(4)]
    assert ['/ood/fog_3/' in path for path in paths] == [True, True, False, False]
    with pytest.raises(UserError, match="sets has 'snow_1', expected some of valid"):
        OODScenesDataset(data_root=scenes, sets=['snow_1'])


def test_scenes_without_ood(tmp_path):
    with pytest.raises(UserError, match=r'make_scenes\.py DIR --ood'):
        OODScenesDataset(data_root=str(tmp_path), pipeline=[])
