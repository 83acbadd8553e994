"""Reading of images with any number of bands, and pictures of them."""

import sys

import numpy as np
import pytest
from PIL import Image

from eomt_mm.datasets import ColorJitter, FitInside, LoadMultiBandImage
from eomt_mm.datasets.geometry import resize_image
from eomt_mm.datasets.multi_band import read_bands
from eomt_mm.datasets.photos import read_photo
from eomt_mm.datasets.reading import fault_of
from eomt_mm.errors import UserError


def bands(count, dtype=np.uint16, size=(6, 9)):
    rng = np.random.default_rng(count)
    return rng.integers(0, 250, (*size, count)).astype(dtype)


def load(path, **options):
    return LoadMultiBandImage(**options)(dict(img_path=str(path)))


# Files


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize('count', [1, 2, 4, 13])
def test_arrays(tmp_path, count, dtype):
    image = bands(count, dtype)
    np.save(tmp_path / 'a.npy', image)
    found = load(tmp_path / 'a.npy')
    assert found['img'].dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    np.testing.assert_array_equal(found['img'], image)
    assert found['img_shape'] == found['ori_shape'] == (6, 9)
    assert found['bands'] == list(range(count))


@pytest.mark.parametrize('count', [2, 4, 13])
@pytest.mark.parametrize('layout', ['contig', 'separate', 'pages'])
def test_tiff(tmp_path, count, layout):
    tifffile = pytest.importorskip('tifffile')
    image, path = bands(count), tmp_path / 'a.tif'
    options = dict(photometric='minisblack', metadata=None)
    if layout == 'pages':
        with tifffile.TiffWriter(path) as file:
            for band in image.transpose(2, 0, 1):
                file.write(band, **options)
    else:
        stored = image if layout == 'contig' else image.transpose(2, 0, 1)
        tifffile.imwrite(path, stored, planarconfig=layout, **options)
    np.testing.assert_array_equal(read_bands(str(path)), image)


def test_tiff_of_one_band(tmp_path):
    pytest.importorskip('tifffile')
    image = bands(1)
    Image.fromarray(image[..., 0]).save(tmp_path / 'a.tif')
    np.testing.assert_array_equal(read_bands(str(tmp_path / 'a.tif')), image)


@pytest.mark.parametrize(('mode', 'count'), [('L', 1), ('LA', 2), ('RGB', 3)])
def test_other_images_keep_the_order_of_the_file(tmp_path, mode, count):
    image = bands(count, np.uint8)
    picture = Image.fromarray(image.squeeze())
    assert picture.mode == mode
    picture.save(tmp_path / 'a.png')
    np.testing.assert_array_equal(load(tmp_path / 'a.png')['img'], image)


def test_sixteen_bits_of_a_png(tmp_path):
    image = bands(1)[..., 0] * 200
    Image.fromarray(image).save(tmp_path / 'a.png')
    np.testing.assert_array_equal(load(tmp_path / 'a.png')['img'][..., 0], image)


def test_chosen_bands_in_their_order(tmp_path):
    image = bands(5)
    np.save(tmp_path / 'a.npy', image)
    found = load(tmp_path / 'a.npy', bands=[4, 0])
    np.testing.assert_array_equal(found['img'], image[..., [4, 0]])
    assert found['bands'] == [4, 0]


# Bad input


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(bands=[0, -1]), r'bands=\[0, -1\]; give the numbers of bands, from 0'),
        (dict(bands=[]), r'bands=\[\]; give'),
        (dict(bands=2), 'bands=2; give the numbers of bands, from 0, such as'),
        (dict(picture='012'), "picture='012'; give the numbers"),
        (dict(picture=[0, 1.5, 2]), r'picture=\[0, 1.5, 2\]; give the numbers'),
        (dict(picture=[0, 1]), r'picture=\[0, 1\]; give three bands'),
        (dict(bands=[3, 1], picture=[3, 2, 1]), r'shows band 2, which bands=\[3, 1\]'),
    ],
)
def test_options_are_checked_before_anything_is_read(options, message):
    with pytest.raises(UserError, match=message):
        LoadMultiBandImage(**options)


@pytest.mark.parametrize('options', [dict(bands=[0, 7]), dict(picture=[0, 1, 7])])
def test_a_band_out_of_range_is_one_line(tmp_path, options):
    np.save(tmp_path / 'a.npy', bands(4))
    message = r'a\.npy has 4 bands, 0 to 3, and band 7 is asked for: mend'
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / 'a.npy', **options)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), r'shape \(2, 3, 4, 5\) and type uint8; exp'),
        (np.zeros(3), r'shape \(3,\)'),
        (np.zeros((4, 0, 3)), r'shape \(4, 0, 3\)'),
        (np.zeros((4, 5, 3), complex), 'type complex128'),
        (np.full((4, 5, 3), np.nan), '60 values that are NaN or infinite'),
    ],
)
def test_other_arrays_are_one_line(tmp_path, array, message):
    np.save(tmp_path / 'a.npy', array)
    with pytest.raises(UserError, match=message):
        load(tmp_path / 'a.npy')


def test_a_pickle_is_not_opened(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([[{}]], object), allow_pickle=True)
    assert 'allow_pickle=False' in fault_of(str(tmp_path / 'a.npy'), bands=True)


def test_a_whole_file_of_many_bands_has_no_fault(tmp_path):
    """Pillow knows no TIFF of five bands."""
    tifffile = pytest.importorskip('tifffile')
    path = tmp_path / 'a.tif'
    options = dict(photometric='minisblack', planarconfig='contig')
    tifffile.imwrite(path, bands(5), **options)
    assert fault_of(str(path)) == 'it is not an image in a known format'
    assert fault_of(str(path), bands=True) is None
    path.write_bytes(path.read_bytes()[:200])
    assert fault_of(str(path), bands=True) not in (None, fault_of(str(path)))


@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_a_broken_array_has_a_fault(tmp_path, share):
    path = tmp_path / 'a.npy'
    np.save(path, bands(4))
    assert fault_of(str(path), bands=True) is None
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert fault_of(str(path), bands=True)


def test_tiff_without_its_package_is_one_line(tmp_path, monkeypatch):
    Image.fromarray(bands(1, np.uint8)[..., 0]).save(tmp_path / 'a.tif')
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    with pytest.raises(UserError, match='pip install tifffile'):
        load(tmp_path / 'a.tif')


# After the loader


def test_colours_of_other_bands_are_not_jittered():
    with pytest.raises(UserError, match='has 4 bands, and ColorJitter changes colours'):
        ColorJitter()(dict(img=bands(4, np.uint8)))


@pytest.mark.parametrize('count', [1, 2, 4, 5])
def test_the_last_of_four_bands_is_not_taken_for_opacity(count):
    """Pillow weights the others by it."""
    image = np.full((8, 8, count), 200, np.uint8)
    image[:4, :, -1] = 0
    found = FitInside(4)(dict(img=image))['img']
    assert found.shape == (4, 4, count)
    np.testing.assert_array_equal(found, resize_image(image, 4, 4))
    assert (found[..., : count - 1] == 200).all()


# Pictures


def test_bytes_are_shown_as_they_are(tmp_path):
    image = bands(4, np.uint8)
    np.save(tmp_path / 'a.npy', image)
    step = dict(type='eomt_mm.LoadMultiBandImage', picture=[3, 0, 1])
    found = read_photo(dict(img_path=str(tmp_path / 'a.npy')), [step])
    np.testing.assert_array_equal(found, image[..., [3, 0, 1]])


def test_the_picture_is_of_bands_of_the_file():
    loader = LoadMultiBandImage(bands=[5, 3, 1], picture=[1, 3, 5])
    image = bands(3, np.uint8)
    np.testing.assert_array_equal(loader.paint(image), image[..., ::-1])


@pytest.mark.parametrize('count', [1, 2])
def test_few_bands_are_shown_in_grey(count):
    image = bands(count, np.uint8)
    found = LoadMultiBandImage().paint(image)
    np.testing.assert_array_equal(found, np.repeat(image[..., :1], 3, -1))


def test_other_values_are_stretched():
    image = np.linspace(-3000, 9000, 10_000, dtype=np.float32).reshape(100, 100, 1)
    found = LoadMultiBandImage().paint(image)[..., 0]
    assert found.dtype == np.uint8
    assert (found == 0).mean() == pytest.approx(0.02, abs=0.003)
    assert (found == 255).mean() == pytest.approx(0.02, abs=0.003)
    assert (np.diff(found.ravel().astype(int)) >= 0).all()


def test_a_constant_band_is_black():
    image = np.full((4, 4, 3), 7.0, np.float32)
    assert not LoadMultiBandImage().paint(image).any()
