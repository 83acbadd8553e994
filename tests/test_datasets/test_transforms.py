"""Sizes, padding, cropping, retrying and resizing against formulas and Pillow."""

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image

from eomt_mm.datasets import (
    PadAndCrop,
    ResizeShortSide,
    RetryUntilLabelled,
    ScaleJitter,
)
from eomt_mm.errors import UserError


def sample(height, width, seed=0):
    """A results dict whose image shows its labels: 60 x label in every channel."""
    labels = np.random.default_rng(seed).integers(0, 4, (height, width), np.uint8)
    image = np.repeat(60 * labels[..., None], 3, axis=-1)
    return dict(img=image, gt_seg_map=labels, seg_fields=['gt_seg_map'])


@pytest.mark.parametrize(
    'shape, size, scale, expected',
    [
        ((333, 500), 512, 1.0, (340, 512)),  # 333 x 1.024 = 340.992, truncated
        ((333, 500), 512, 0.7, (238, 358)),
        ((500, 333), (512, 512), 2.0, (1024, 681)),
        ((1, 500), 512, 0.5, (1, 256)),
        ((100, 400), (64, 128), 1.0, (32, 128)),
    ],
)
def test_scale_jitter_size(shape, size, scale, expected):
    results = ScaleJitter(size, (scale, scale))(sample(*shape))
    assert results['img'].shape == (*expected, 3)
    assert results['img'].dtype == np.uint8
    assert results['gt_seg_map'].shape == expected
    assert results['img_shape'] == expected
    width_height = (expected[1] / shape[1], expected[0] / shape[0])
    assert results['scale_factor'] == pytest.approx(width_height)


def test_scale_jitter_draws_the_whole_range():
    np.random.seed(0)
    jitter = ScaleJitter(40, (0.5, 2.0))
    sides = [jitter(sample(40, 40))['img'].shape[0] for _ in range(300)]
    assert 20 <= min(sides) <= 22 and 77 <= max(sides) <= 80
    assert np.mean(sides) == pytest.approx(1.25 * 40, abs=2.5)


def test_scale_jitter_is_antialiased_for_images_and_nearest_for_labels():
    photo = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    labels = np.arange(8100).reshape(90, 90).astype(np.int32)
    results = dict(img=photo, gt_seg_map=labels, seg_fields=['gt_seg_map'])
    results = ScaleJitter(90, (1 / 3, 1 / 3))(results)
    expected = np.asarray(Image.fromarray(photo).resize((30, 30), Image.BILINEAR))
    difference = results['img'].astype(int) - expected
    assert np.abs(difference).max() <= 1
    np.testing.assert_array_equal(results['gt_seg_map'], labels[::3, ::3])


def test_padding_is_raw_zero_and_ignored():
    results = PadAndCrop(64)(dict(sample(30, 40), img=np.full((30, 40, 3), 200, 'u1')))
    inside = np.zeros((64, 64), bool)
    inside[:30, :40] = True
    assert (results['img'][inside] == 200).all()
    assert (results['img'][~inside] == 0).all()
    assert (results['gt_seg_map'][~inside] == 255).all()
    assert (results['gt_seg_map'][inside] < 4).all()


def test_crops_reach_every_offset_and_keep_image_and_labels_together():
    np.random.seed(0)
    origin = sample(12, 9)
    seen = set()
    for _ in range(100):
        results = PadAndCrop((10, 9))({**origin})
        image, labels = results['img'], results['gt_seg_map']
        assert image.shape == (10, 9, 3) and results['img_shape'] == (10, 9)
        np.testing.assert_array_equal(image[..., 0], 60 * labels)
        seen.add(labels.tobytes())
    windows = [origin['gt_seg_map'][top : top + 10].tobytes() for top in range(3)]
    assert seen == set(windows)


def test_retry_is_bounded_and_starts_from_the_original():
    init_default_scope('mmseg')
    tries = []

    def spoil(results):
        tries.append(results['gt_seg_map'].max())
        results['gt_seg_map'][:] = 255  # in place, on purpose
        return results

    results = RetryUntilLabelled([spoil], max_tries=7)(sample(4, 4))
    assert tries == [3] * 7
    assert (results['gt_seg_map'] == 255).all()


def test_retry_stops_at_the_first_labelled_result():
    tries = []

    def label_at_third(results):
        tries.append(1)
        results['gt_seg_map'][:] = 255
        if len(tries) == 3:
            results['gt_seg_map'][0, 0] = 2
        return results

    RetryUntilLabelled([label_at_third], max_tries=10)(sample(4, 4))
    assert len(tries) == 3


def test_retry_needs_a_try():
    with pytest.raises(UserError, match='max_tries is 0'):
        RetryUntilLabelled([], max_tries=0)


@pytest.mark.parametrize(
    'shape, size, expected',
    [
        ((480, 640), 512, (512, 683)),
        ((1024, 2048), 1024, (1024, 2048)),
        ((500, 375), 512, (683, 512)),
        ((7, 50), 16, (16, 114)),
        ((1, 500), 16, (1, 160)),  # bounded by max_aspect = 10
    ],
)
def test_resize_short_side_equals_pillow(shape, size, expected):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    labels = np.zeros(shape, np.uint8)
    results = dict(img=photo, gt_seg_map=labels, seg_fields=['gt_seg_map'])
    results = ResizeShortSide(size)(results)
    assert results['img_shape'] == expected
    resized = Image.fromarray(photo).resize(expected[::-1], Image.BILINEAR)
    np.testing.assert_array_equal(results['img'], np.asarray(resized))
    assert results['gt_seg_map'].shape == shape
