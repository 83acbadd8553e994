"""Ranges, probabilities and order of the colour jitter."""

import colorsys
from types import SimpleNamespace

import numpy as np

from eomt_mm.datasets import ColorJitter, transforms

DRAWS = 400


def jittered(pixel_bgr, **ranges):
    """`DRAWS` outputs for an image of one colour, with the unnamed ranges closed."""
    np.random.seed(0)
    closed = dict(brightness=0, contrast=0, saturation=0, hue=0)
    jitter = ColorJitter(**(closed | ranges))
    image = np.full((2, 2, 3), pixel_bgr, np.uint8)
    return np.array([jitter(dict(img=image))['img'][0, 0] for _ in range(DRAWS)])


def test_brightness_is_a_factor_within_32_of_255():
    values = jittered([200, 200, 200], brightness=32 / 255)[:, 0]
    assert 174 <= values.min() <= 178 and 221 <= values.max() <= 225
    assert 0.4 < (values == 200).mean() < 0.6  # applied in one half of the cases


def test_hue_turns_by_at_most_18_degrees():
    bgr = jittered([50, 50, 200], hue=0.05)  # red
    turns = np.array([colorsys.rgb_to_hsv(*pixel[::-1] / 255)[0] for pixel in bgr])
    turns = (turns + 0.5) % 1 - 0.5
    assert -0.0515 < turns.min() < -0.045 and 0.045 < turns.max() < 0.0515


def test_saturation_blends_with_the_luma_of_rgb():
    red = jittered([255, 0, 0], saturation=0.5)[:, 2]  # of a blue image
    assert 12 <= red.max() <= 15  # half of 0.114 x 255, not of 0.299 x 255


def test_contrast_blends_with_the_mean_of_the_grey_image():
    np.random.seed(0)
    image = np.zeros((2, 2, 3), np.uint8)
    image[0] = 200  # mean 100
    jitter = ColorJitter(brightness=0, contrast=0.5, saturation=0, hue=0)
    dark = np.array([jitter(dict(img=image))['img'][1, 0, 0] for _ in range(DRAWS)])
    assert 47 <= dark.max() <= 50  # factor 0.5 brings 0 half the way to 100


def test_defaults_are_the_published_ranges():
    ranges = {op.__name__: r for op, r in ColorJitter().ranges.items()}
    np.testing.assert_allclose(ranges['adjust_brightness'], (0.8745, 1.1255), atol=1e-4)
    assert ranges['adjust_contrast'] == (0.5, 1.5)
    assert ranges['adjust_saturation'] == (0.5, 1.5)
    assert ranges['adjust_hue'] == (-0.05, 0.05)


def test_order_and_probability(monkeypatch):
    calls = []

    def recorder(name):
        return lambda image, factor: calls[-1].append(name) or image

    names = ('brightness', 'contrast', 'saturation', 'hue')
    fake = SimpleNamespace(**{f'adjust_{name}': recorder(name) for name in names})
    monkeypatch.setattr(transforms, 'F', fake)
    np.random.seed(0)
    jitter = ColorJitter()
    for _ in range(2000):
        calls.append([])
        jitter(dict(img=np.zeros((1, 1, 3), np.uint8)))

    first = list(names)
    last = ['brightness', 'saturation', 'hue', 'contrast']
    assert all(c in ([n for n in o if n in c] for o in (first, last)) for c in calls)
    full = [c for c in calls if len(c) == 4]
    assert 0.35 < np.mean([c == first for c in full]) < 0.65
    for name in names:
        assert 0.45 < np.mean([name in c for c in calls]) < 0.55


def test_image_stays_contiguous_uint8():
    image = np.zeros((5, 7, 3), np.uint8)[:, :, ::-1]
    out = ColorJitter()(dict(img=image))['img']
    assert out.shape == (5, 7, 3) and out.dtype == np.uint8
    assert out.flags.c_contiguous
