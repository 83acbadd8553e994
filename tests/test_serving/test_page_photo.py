"""Uploads of every kind: what is read, and one sentence for what is not."""

import io

import numpy as np
import pytest
from PIL import Image

from eomt_mm.errors import UserError
from serving.photo import SHOWN_SIDE, Photo, read_photo
from visitor import encoded


def one_bit(side):
    file = io.BytesIO()
    Image.new('1', (side, side)).save(file, 'PNG')
    return file.getvalue()


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'GIF'])
def test_pixels_are_those_of_the_file(pixels, kind):
    grey = np.repeat(pixels[..., :1], 3, 2)  # a GIF has 256 colours
    read, note = read_photo(encoded(grey, kind), 1)
    assert (read == grey).all() and not note


def test_a_photo_is_turned_upright(pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    read, _ = read_photo(encoded(pixels, 'PNG', exif=exif), 1)
    assert (read == np.rot90(pixels, -1)).all()


def test_of_an_animation_the_first_picture_is_taken(pixels):
    grey = pixels[..., 0]
    frames = [Image.fromarray(np.roll(grey, shift)) for shift in (9, 20)]
    read, note = read_photo(
        encoded(grey, 'GIF', save_all=True, append_images=frames), 1
    )
    assert (read == grey[..., None]).all()
    assert '3 pictures' in note


@pytest.mark.parametrize(
    'content, words',
    [
        (b'', 'the file is empty'),
        (b'a text with the name of a photo', 'not a photo'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'not a photo'),
        (one_bit(10_000), '100 megapixels (10000 x 10000), and at most 50'),
        (one_bit(20_000), 'too many pixels'),  # beyond Pillow's own limit
    ],
)
def test_what_is_not_taken_is_told_in_one_sentence(content, words):
    with pytest.raises(UserError) as told:
        read_photo(content, 50)
    assert words in str(told.value) and '\n' not in str(told.value)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_a_photo_that_is_cut_off(pixels, kind):
    content = encoded(pixels, kind)
    with pytest.raises(UserError, match='damaged or cut off'):
        read_photo(content[: len(content) // 2], 1)


def test_the_browser_gets_a_bounded_picture():
    photo = Photo('wide', np.zeros((30, 2 * SHOWN_SIDE, 3), np.uint8))
    assert photo.shown_size == (15, SHOWN_SIDE)
    assert Image.open(io.BytesIO(photo.jpeg)).size == (SHOWN_SIDE, 15)
