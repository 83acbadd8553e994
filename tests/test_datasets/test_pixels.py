"""Any image: mode, depth, orientation, floats; and how many pixels it may have."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from eomt_mm import pixel_limit
from eomt_mm.cli.exit import one_line
from eomt_mm.datasets import ColorJitter, geometry
from eomt_mm.datasets.photos import read_photo
from eomt_mm.datasets.reading import fault_of
from eomt_mm.errors import UserError

MODES = ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I', 'I;16', 'F']
SUFFIXES = ['.png', '.tif', '.jpg', '.webp', '.bmp']


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,  # of a busy machine
    ],
)
@given(
    mode=st.sampled_from(MODES),
    suffix=st.sampled_from(SUFFIXES),
    orientation=st.integers(0, 9),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    loader=st.fixed_dictionaries(
        dict(
            to_float32=st.booleans(),
            color_type=st.sampled_from(['color', 'color_ignore_orientation']),
        )
    ),
    seed=st.integers(0, 9),
)
def test_any_image_trains_and_tests(
    tmp_path, mode, suffix, orientation, shape, loader, seed
):
    init_default_scope('mmseg')
    rng = np.random.default_rng(seed)
    np.random.seed(seed)
    if mode in ('I', 'I;16', 'F'):
        dtype = {'I': np.int32, 'I;16': np.uint16, 'F': np.float32}[mode]
        image = Image.fromarray(rng.integers(0, 65536, shape).astype(dtype))
    else:
        pixels = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
        image = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / f'a{suffix}')
    try:
        image.save(path, exif=exif)
        Image.open(path).load()
    except (OSError, ValueError, KeyError):
        return  # this format does not know this mode, or Pillow writes it damaged
    steps = [
        dict(type='LoadImageFromFile', imdecode_backend='pillow', **loader),
        dict(type='eomt_mm.DecodeSixteenBit'),
    ]
    try:
        photo = read_photo(dict(img_path=path), steps)
        for step in (
            [dict(type='eomt_mm.ResizeShortSide', size=8)],
            [dict(type='eomt_mm.FitInside', size=8)],
            [
                dict(type='eomt_mm.ColorJitter'),
                dict(type='eomt_mm.ScaleJitter', size=8, scale_range=(0.5, 2)),
                dict(type='eomt_mm.PadAndCrop', size=8),
            ],
        ):
            found = Compose([*steps, *step])(dict(img_path=path))['img']
            assert found.ndim == 3 and np.isfinite(found).all()
            assert found.min() >= 0 and found.max() <= 255
    except UserError as error:
        assert path in str(error)
        return
    is_turned = orientation in range(5, 9) and suffix != '.bmp'  # BMP has no EXIF
    # Pillow turns TIFF by itself.
    is_upright = is_turned and (loader['color_type'] == 'color' or suffix == '.tif')
    assert photo.shape[:2] == (shape[::-1] if is_upright else shape)


@pytest.mark.parametrize('seed', range(6))
def test_floats_are_jittered_as_bytes_are(seed):
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    found = []
    for dtype in (np.uint8, np.float32):
        np.random.seed(seed)
        found.append(ColorJitter()(dict(img=image.astype(dtype)))['img'])
    assert found[1].dtype == np.float32
    assert np.abs(found[0] - found[1]).max() <= 4  # bytes are rounded four times


@pytest.mark.parametrize('size', [(5, 7), (30, 40)])
def test_floats_are_resized_as_bytes_are(size):
    image = np.random.default_rng(0).integers(0, 256, (16, 12, 3)).astype(np.uint8)
    plain = geometry.resize_image_pil(image, *size)
    floats = geometry.resize_image_pil(image.astype(np.float32), *size)
    assert floats.dtype == np.float32
    assert np.abs(plain - floats).max() < 1.01  # bytes are rounded twice


@pytest.fixture
def large(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 500)
    path = tmp_path / 'large.png'
    Image.new('RGB', (40, 30)).save(path)
    return str(path)


def test_too_many_pixels_are_one_line(large):
    fault = fault_of(large)
    assert pixel_limit.VARIABLE in fault
    with pytest.raises(Image.DecompressionBombError) as caught:
        Image.open(large)
    assert pixel_limit.VARIABLE in one_line(caught.value)


def test_the_limit_can_be_raised(large, monkeypatch):
    monkeypatch.setenv(pixel_limit.VARIABLE, '0.0012')
    pixel_limit.apply_limit()
    assert fault_of(large) is None
    monkeypatch.setenv(pixel_limit.VARIABLE, '0.0011')
    pixel_limit.apply_limit()
    assert fault_of(large)


@pytest.mark.parametrize('text', ['many', '-1', '0', 'nan', 'inf'])
def test_a_limit_that_is_none(monkeypatch, text):
    monkeypatch.setenv(pixel_limit.VARIABLE, text)
    with pytest.raises(UserError, match=pixel_limit.VARIABLE):
        pixel_limit.apply_limit()


def test_importing_the_package_applies_the_limit():
    code = 'import eomt_mm; from PIL import Image; print(Image.MAX_IMAGE_PIXELS)'
    environment = {**os.environ, pixel_limit.VARIABLE: '400'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == '200000000'
