"""A small dataset in ADE20K's layout, written for each test that asks for it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='session')
def load_tool():
    """`load_tool('analysis_tools/browse_dataset')`: a tool as a module."""

    def load(name: str):
        path = ROOT / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[path.stem] = module  # worker processes look it up by name
        return module

    return load


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
