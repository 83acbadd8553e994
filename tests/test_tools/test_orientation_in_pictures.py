"""Pictures show the photo as the pipeline loaded it: EXIF orientation, 16 bits."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image, ImageOps

from eomt_mm.datasets.photos import read_photo

LOADER = dict(type='LoadImageFromFile', imdecode_backend='pillow')


@pytest.fixture
def turned(ade_root, tmp_path):
    """The tiny data with photos that are not square and say to be turned."""
    root = tmp_path / 'turned'
    shutil.copytree(ade_root, root)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in root.glob('images/validation/*.jpg'):
        Image.open(path).crop((0, 0, 32, 24)).save(path, exif=exif)
    for path in root.glob('annotations/validation/*.png'):
        Image.open(path).crop((0, 0, 32, 24)).save(path)
    return root


@pytest.fixture
def argv(config, trained, turned, tmp_path):
    cfg = Config.fromfile(config)
    for dataset in (cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        dataset.data_root = str(turned)
        dataset.pipeline[0].color_type = 'color_ignore_orientation'
    path = tmp_path / 'turned.py'
    cfg.dump(path)
    return [str(path), str(trained)]


def test_show_dir(tool, argv, tmp_path):
    show = tmp_path / 'show'
    argv = [*argv, '--work-dir', str(tmp_path / 'w'), '--show-dir', str(show)]
    tool('test').main(argv)
    pictures = sorted(show.glob('**/*.png'))
    assert len(pictures) == 4
    # Truth beside prediction, each as wide as the stored photo.
    assert {Image.open(p).size for p in pictures} == {(64, 24)}


def test_panels(tool, argv, tmp_path):
    argv = [*argv, '--out', str(tmp_path / 'panels'), '--columns', 'photo']
    first, *_ = tool('analysis_tools/show_results').main(argv)
    raw, upright = Image.open(first).size, (24, 32)
    assert raw[0] > raw[1] * upright[0] / upright[1]  # wide, as stored


@pytest.mark.parametrize('to_float32', [False, True])
@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('ignores', [False, True])
def test_sixteen_bits(tmp_path, orientation, ignores, to_float32):
    """Values on both sides of 255: what the loader clips tells what it has turned."""
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 6)).astype(np.uint16)
    pixels[:2, :3] = [[1, 2, 3], [4, 5, 6]]
    path = tmp_path / 'a.png'
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    kind = 'color_ignore_orientation' if ignores else 'color'
    loader = dict(LOADER, color_type=kind, to_float32=to_float32)
    steps = [loader, dict(type='eomt_mm.DecodeSixteenBit')]
    found = read_photo(dict(img_path=str(path)), steps)
    high = Image.fromarray((pixels >> 8).astype(np.uint8))
    high.getexif()[0x0112] = 1 if ignores else orientation
    assert np.array_equal(found[..., 0], np.array(ImageOps.exif_transpose(high)))


def test_bright_sixteen_bits_beside_labels_stay_as_stored(tmp_path):
    pixels = np.arange(300, 316, dtype=np.uint16).reshape(4, 4) << 4
    exif = Image.Exif()
    exif[0x0112] = 3
    path = str(tmp_path / 'a.png')
    Image.fromarray(pixels).save(path, exif=exif)
    loader = dict(LOADER, color_type='color_ignore_orientation')
    steps = [loader, dict(type='eomt_mm.DecodeSixteenBit')]
    stored = (pixels >> 8).astype(np.uint8)
    labelled = read_photo(dict(img_path=path, seg_map_path='b.png'), steps)
    assert np.array_equal(labelled[..., 0], stored)
    upright = read_photo(dict(img_path=path), steps)
    assert np.array_equal(upright[..., 0], stored[::-1, ::-1])


def test_the_given_sample(tmp_path):
    dirty = Path(__file__).parents[3] / 'shared/data/dirty/images'
    if not dirty.is_dir():
        pytest.skip('no shared data')
    steps = [LOADER, dict(type='eomt_mm.DecodeSixteenBit')]
    path = dirty / 'sixteen_bit_orientation_6.png'
    found = read_photo(dict(img_path=str(path)), steps)
    with Image.open(path) as file:
        assert found.shape[:2] == file.size
