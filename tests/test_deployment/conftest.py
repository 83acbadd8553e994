"""Tiny models exported once; photographs of odd sizes."""

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image

from measuring.inference import load_model, photo_info, photo_pipeline
from tiny_models import make_tiny


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """`tiny('panoptic', arch='eva02')` has a `config` and a `checkpoint`, as paths."""

    def make(task='semantic', arch='plain', merging=None, std=0.25, **changes):
        folder = tmp_path_factory.mktemp(f'{task}_{arch}')
        return make_tiny(folder, task, arch, merging, std, **changes)

    return make


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """A wide photo, a high one, a small one: smooth shapes with noise."""
    folder = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    paths = []
    for number, (height, width) in enumerate([(70, 150), (131, 90), (24, 31)]):
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / (7 + i)) * np.cos(y / (11 - i)) for i in range(3)]
        pixels = 128 + 90 * np.stack(waves, -1) + rng.normal(0, 15, (height, width, 3))
        path = folder / f'{number}.png'
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope='session')
def export(run_tool, photos):
    """`export(tiny(), path, *options)` runs the tool; returns the differences."""

    def run(model, out, *options):
        return run_tool(
            'deployment/export',
            model.config,
            model.checkpoint,
            *('--out', out, '--photo', photos[0], *options),
        )

    return run


@pytest.fixture(scope='session')
def exported(tiny, export, tmp_path_factory):
    """`exported('panoptic')` is a tiny model with `onnx`, the path of its file."""
    made = {}

    def get(task):
        if task not in made:
            made[task] = tiny(task)
            made[task].onnx = tmp_path_factory.mktemp('onnx') / f'{task}.onnx'
            export(made[task], made[task].onnx)
        return made[task]

    return get


@pytest.fixture(scope='session')
def predict():
    """`predict(cfg, checkpoint, photo)` is what `tools/test.py` makes of a photo."""

    def run(cfg, checkpoint, photo):
        model = load_model(cfg, str(checkpoint), torch.device('cpu'))
        item = photo_pipeline(cfg)(photo_info(str(photo)))
        with torch.no_grad():
            return model.test_step(pseudo_collate([item]))[0]

    return run
