"""The synthetic scenes: repeatable, complete, consistent."""

import numpy as np
import pytest

from eomt_mm.datasets.scenes import CLASSES, NUM_STUFF, PALETTE, SHAPES, draw_scene


def scene(seed, size=64):
    return draw_scene(np.random.default_rng(seed), size)


def test_same_seed_same_scene():
    for one, other in zip(scene(3), scene(3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (scene(3)[0] != scene(4)[0]).any()


@pytest.mark.parametrize('size', [64, (48, 96), 7, 1, 200])
def test_shapes_and_ranges(size):
    shape = (size, size) if isinstance(size, int) else size
    image, semantic, instance = scene(0, size)
    assert image.shape == (*shape, 3) and image.dtype == np.uint8
    assert semantic.shape == instance.shape == shape
    assert semantic.max() < len(CLASSES) == len(PALETTE)


def test_every_class_is_common():
    area = np.zeros(len(CLASSES))
    for seed in range(200):
        area += np.bincount(scene(seed)[1].ravel(), minlength=len(CLASSES))
    share = area / area.sum()
    assert (share[:NUM_STUFF] > 0.2).all() and (share[NUM_STUFF:] > 0.01).all()


def test_an_instance_is_one_thing_and_stuff_is_none():
    counts = []
    for seed in range(60):
        _, semantic, instance = scene(seed)
        assert (instance > 0).tolist() == (semantic >= NUM_STUFF).tolist()
        ids = np.unique(instance[instance > 0])
        counts.append(len(ids))
        for thing in ids:
            assert len(np.unique(semantic[instance == thing])) == 1
    assert 1 in counts and max(counts) == 4


def test_areas_of_the_shapes():
    """Areas in units of the squared radius, from plane geometry."""
    axis = np.linspace(-1.2, 1.2, 801)
    u, v = np.meshgrid(axis, axis)
    pixel = (axis[1] - axis[0]) ** 2
    area = {
        name: (distance(u, v) < 0).sum() * pixel for name, distance in SHAPES.items()
    }
    expected = {
        'disc': np.pi,
        'ring': np.pi * (1 - 0.55**2),
        'square': 2.0,
        'triangle': 3 * np.sqrt(3) / 4,
        'star': 5 * 0.45 * np.sin(np.pi / 5),
    }
    assert area == pytest.approx(expected, rel=0.01)


def test_things_stand_out():
    """Colours differ by about 0.3 in at least one channel."""
    for seed in range(40):
        image, semantic, instance = scene(seed, 128)
        if (instance == 1).sum() < 200 or (instance > 1).any():
            continue
        thing = image[instance == 1].astype(float).mean(0)
        # Background of the same rows, so that sky meets sky.
        rows = (instance == 1).any(1)
        around = image[rows][instance[rows] == 0].astype(float)
        assert np.abs(thing - around).max() > 0.2 * 255


def test_small_things_are_small_and_come_last():
    for seed in range(20):
        _, _, plain = scene(seed, 256)
        _, semantic, instance = draw_scene(np.random.default_rng(seed), 256, small=8)
        others = plain.max()
        areas = np.bincount(instance.ravel(), minlength=others + 9)[others + 1 :]
        assert len(areas) == 8 and areas.max() < 32 * 32  # small, as COCO says
        assert (areas > 0).sum() >= 7
        untouched = (instance <= others) & (instance > 0)
        assert (instance[untouched] == plain[untouched]).all()
        assert (instance > 0).tolist() == (semantic >= NUM_STUFF).tolist()
