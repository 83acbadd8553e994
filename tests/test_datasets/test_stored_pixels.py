"""Photos with labels keep the pixels as stored; photos without are turned upright."""

import json

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from eomt_mm.datasets.photos import Photos
from eomt_mm.errors import UserError

LOAD = dict(type='LoadImageFromFile', imdecode_backend='pillow')


@pytest.fixture
def photo(tmp_path):
    """`photo(orientation)` writes a PNG of 20 x 20 pixels and returns what it holds."""

    def write(orientation, mode='RGB', size=(20, 20)):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        if mode == 'I;16':
            pixels = rng.integers(300, 65536, size).astype(np.uint16)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / 'a.png', exif=exif)
        if mode == 'I;16':
            return np.repeat((pixels >> 8)[..., None], 3, -1).astype(np.uint8)
        return pixels

    return write


def semantic(root, **options):
    init_default_scope('mmseg')
    labels = np.arange(400, dtype=np.uint8).reshape(20, 20) % 3
    (root / 'labels').mkdir(exist_ok=True)
    Image.fromarray(labels).save(root / 'labels/a.png')
    return DATASETS.build(
        dict(
            type='eomt_mm.SegDataset',
            data_prefix=dict(img_path=str(root), seg_map_path=str(root / 'labels')),
            img_suffix='a.png',
            seg_map_suffix='a.png',
            metainfo=dict(classes=('a', 'b', 'c')),
            pipeline=[
                options.pop('load', LOAD),
                dict(type='eomt_mm.LoadSemanticAnnotations', **options),
                dict(type='PackSegInputs'),
            ],
        )
    )


def instances(root, **options):
    init_default_scope('mmdet')
    content = dict(
        images=[dict(id=1, file_name='a.png', height=20, width=20)],
        categories=[dict(id=1, name='a')],
        annotations=[
            dict(
                id=1,
                image_id=1,
                category_id=1,
                segmentation=[[0, 0, 9, 0, 9, 5]],
                iscrowd=0,
            )
        ],
    )
    (root / 'a.json').write_text(json.dumps(content))
    return DATASETS.build(
        dict(
            type='eomt_mm.CocoInstanceDataset',
            ann_file=str(root / 'a.json'),
            data_prefix=dict(img=str(root)),
            metainfo=dict(classes=('a',)),
            pipeline=[
                options.pop('load', LOAD),
                dict(type='eomt_mm.LoadInstanceAnnotations', **options),
                dict(type='PackDetInputs'),
            ],
        )
    )


def pixels_of(dataset):
    return dataset[0]['inputs'].numpy()[::-1].transpose(1, 2, 0)


@pytest.mark.parametrize('build', [semantic, instances])
@pytest.mark.parametrize('mode', ['RGB', 'I;16'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_data_set_has_the_pixels_as_stored(photo, tmp_path, build, mode, orientation):
    stored = photo(orientation, mode)
    dataset = build(tmp_path)
    np.testing.assert_array_equal(pixels_of(dataset), stored)
    picture = Photos(dataset)[str(tmp_path / 'a.png')]
    np.testing.assert_array_equal(picture, stored)


@pytest.mark.parametrize('to_float32', [False, True])
def test_the_loader_may_be_any(photo, tmp_path, to_float32):
    stored = photo(3)
    load = dict(type='LoadImageFromFile', to_float32=to_float32)  # OpenCV
    np.testing.assert_array_equal(pixels_of(semantic(tmp_path, load=load)), stored)


@pytest.mark.parametrize('build', [semantic, instances])
def test_labels_drawn_on_the_upright_photo(photo, tmp_path, build):
    stored = photo(3)
    upright = build(tmp_path, upright=True)
    np.testing.assert_array_equal(pixels_of(upright), stored[::-1, ::-1])


@pytest.mark.parametrize('loads', ['Semantic', 'Instance', 'Panoptic'])
def test_a_photo_without_labels_is_upright(photo, tmp_path, loads):
    init_default_scope('mmseg')
    stored = photo(6, size=(20, 30))
    steps = Compose([LOAD, dict(type=f'eomt_mm.Load{loads}Annotations')])
    found = steps(dict(img_path=str(tmp_path / 'a.png')))['img'][..., ::-1]
    np.testing.assert_array_equal(found, np.rot90(stored, -1))


def test_resized_before_its_labels_a_turned_photo_is_refused(photo, tmp_path):
    photo(3)
    dataset = semantic(tmp_path)
    resize = dict(type='eomt_mm.ResizeShortSide', size=33)
    load, labels, pack = dataset.pipeline.transforms
    dataset.pipeline = Compose([load, resize, labels, pack])
    with pytest.raises(UserError, match='right after LoadImageFromFile'):
        dataset[0]
