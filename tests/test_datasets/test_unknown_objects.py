"""Scenes out of distribution and the layouts of data sets of unknown objects."""

import numpy as np
import pytest
from PIL import Image

from eomt_mm.datasets import (
    LoadSemanticAnnotations,
    OODScenesDataset,
    ScenesDataset,
)
from eomt_mm.datasets.bravo import LAYOUTS, UnknownObjectsDataset
from eomt_mm.datasets.scenes import draw_scene
from eomt_mm.datasets.scenes_ood import CORRUPTIONS, add_unknown, corrupt
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


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    images, labels, suffix = LAYOUTS[request.param]
    for name in ('a', 'b'):
        for folder, ending in ((images, '.png'), (labels, suffix)):
            path = tmp_path / folder / f'{name}{ending}'
            path.parent.mkdir(exist_ok=True)
            Image.new('L', (4, 4)).save(path)
    return dict(data_root=str(tmp_path), layout=request.param, img_suffix='.png')


def test_layouts(layout):
    dataset = UnknownObjectsDataset(**layout, pipeline=[])
    assert len(dataset) == 2
    assert dataset.get_data_info(1)['seg_map_path'].endswith(
        f'b{LAYOUTS[layout["layout"]][2]}'
    )


def test_missing_and_extra_label_maps(layout, tmp_path):
    _, labels, suffix = LAYOUTS[layout['layout']]
    (tmp_path / labels / f'a{suffix}').rename(tmp_path / labels / f'c{suffix}')
    with pytest.raises(UserError, match='missing label map'):
        UnknownObjectsDataset(**layout, pipeline=[])
    Image.new('L', (4, 4)).save(tmp_path / labels / f'a{suffix}')
    with pytest.raises(UserError, match='extra label map'):
        UnknownObjectsDataset(**layout, pipeline=[])


def test_unknown_layout():
    with pytest.raises(UserError, match="'lostandfound', expected one of smiyc"):
        UnknownObjectsDataset(layout='lostandfound')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory, run_tool):
    out = tmp_path_factory.mktemp('data') / 'scenes'
    options = ('--train', 1, '--val', 2, '--ood')
    run_tool('dataset_converters/make_scenes', out, *options)
    return str(out / 'ADEChallengeData2016')


def labels_of(dataset, index):
    return LoadSemanticAnnotations()(
        dataset.get_data_info(index)
        | dict(img=np.zeros((64, 64, 3)), ori_shape=(64, 64))
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


def test_a_list_names_the_images_with_labels(layout, tmp_path):
    """As of data sets whose test images come without."""
    _, labels, suffix = LAYOUTS[layout['layout']]
    (tmp_path / 'list.txt').write_text('b\n')
    assert len(UnknownObjectsDataset(**layout, ann_file='list.txt', pipeline=[])) == 1
    (tmp_path / labels / f'a{suffix}').unlink()
    dataset = UnknownObjectsDataset(**layout, ann_file='list.txt', pipeline=[])
    assert dataset.get_data_info(0)['seg_map_path'].endswith(f'b{suffix}')
    with pytest.raises(UserError, match='ann_file may name the images'):
        UnknownObjectsDataset(**layout, pipeline=[])
