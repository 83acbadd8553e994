"""A small dataset in ADE20K's layout, written for each test that asks for it."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

ROOT = Path(__file__).parents[2]
THINGS = ('disc', 'square', 'triangle', 'star', 'ring')


@pytest.fixture
def ade(tmp_path):
    """`ade(size=..., count=...)` writes image/label pairs and returns their root."""

    def write(size=(20, 30), count=1) -> Path:
        rng = np.random.default_rng(0)
        for split in ('training', 'validation'):
            images = tmp_path / 'images' / split
            annotations = tmp_path / 'annotations' / split
            images.mkdir(parents=True)
            annotations.mkdir(parents=True)
            for i in range(count):
                photo = rng.integers(0, 256, (*size, 3), np.uint8)
                Image.fromarray(photo).save(images / f'{i}.jpg')
                labels = rng.integers(0, 4, size, np.uint8)
                Image.fromarray(labels).save(annotations / f'{i}.png')
        return tmp_path

    return write


@pytest.fixture
def build():
    """`build(root, 'train')` builds ADE20K from this package's config."""

    def from_config(root, split, config='ade20k', **settings):
        init_default_scope('mmseg')
        cfg = Config.fromfile(ROOT / f'configs/_base_/datasets/{config}.py')
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.update(data_root=str(root), **settings)
        return DATASETS.build(dataset)

    return from_config


@pytest.fixture
def build_coco():
    """`build_coco('scenes_panoptic', root)` builds a test dataset and its metric."""

    def from_config(name, root, **settings):
        init_default_scope('mmdet')
        cfg = Config.fromfile(ROOT / f'configs/_base_/datasets/{name}.py')
        dataset = cfg.val_dataloader.dataset
        dataset.update(data_root=str(root), **settings)
        metric = cfg.val_evaluator
        for key in ('ann_file', 'seg_prefix'):
            if key in metric:
                metric[key] = metric[key].replace(cfg.data_root, str(root))
        return DATASETS.build(dataset), metric

    return from_config


@pytest.fixture
def coco(tmp_path):
    """`coco(panoptic={...})`: one photo, a square, a crowd and sky, then changed."""

    def write(kind, **changes):
        Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(tmp_path / 'a.png')
        square = dict(id=1, category_id=2, iscrowd=0, area=50, bbox=[0, 0, 10, 5])
        crowd = dict(id=300, category_id=3, iscrowd=1, area=20, bbox=[20, 0, 10, 2])
        sky = dict(id=70000, category_id=6, iscrowd=0, area=300, bbox=[0, 10, 30, 10])
        square |= changes.get('square', {})
        ids = np.zeros((20, 30), int)
        ids[:5, :10], ids[:2, 20:], ids[10:] = 1, 300, 70000
        ids = changes.get('ids', lambda ids: ids)(ids)
        rgb = np.stack((ids % 256, ids // 256 % 256, ids // 65536), -1)
        (tmp_path / 'panoptic').mkdir()
        Image.fromarray(rgb.astype(np.uint8)).save(tmp_path / 'panoptic/a.png')
        categories = [
            dict(id=i, name=name, isthing=int(i < 6))
            for i, name in enumerate((*THINGS, 'sky', 'ground'), start=1)
        ]
        annotations = [
            dict(image_id=7, file_name='a.png', segments_info=[square, crowd, sky])
        ]
        if kind == 'instance':
            box = [[0.0, 0, 10, 0, 10, 5, 0, 5]]
            runs = dict(size=[20, 30], counts=[400, 2, 198])
            square = dict(image_id=7, segmentation=box) | square
            crowd |= dict(image_id=7, segmentation=runs)
            annotations = [square, crowd]
        image = dict(id=7, file_name='a.png', height=20, width=30)
        image |= changes.get('image', {})
        content = dict(
            images=[image],
            annotations=annotations,
            categories=changes.get('categories', lambda c: c)(categories),
        )
        content = changes.get('content', lambda c: c)(content)
        (tmp_path / 'a.json').write_text(json.dumps(content))
        return tmp_path

    return write
