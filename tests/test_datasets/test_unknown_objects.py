"""Scenes out of distribution and the layouts of data sets of unknown objects."""

import numpy as np
import pytest
from PIL import Image

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
