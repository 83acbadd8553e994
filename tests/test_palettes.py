"""Colours for classes without: distinct, legible, inherited only where they fit."""

import itertools

import cv2
import numpy as np
import pytest

from eomt_mm.palettes import distinct_colours, palette_of


@pytest.mark.parametrize(('count', 'apart'), [(2, 60), (20, 25), (150, 8)])
def test_distinct_and_legible(count, apart):
    colours = np.array(distinct_colours(count), np.float32)
    lab = cv2.cvtColor(colours[None] / 255, cv2.COLOR_RGB2LAB)[0]
    assert lab[:, 0].min() > 35 and lab[:, 0].max() < 88
    pairs = itertools.combinations(lab, 2)
    assert min(np.linalg.norm(a - b) for a, b in pairs) > apart


def test_more_classes_than_colours():
    assert len(distinct_colours(1000)) == 1000


def test_which_colours():
    published = dict(classes=('car', 'cat'), palette=[(1, 1, 1), (2, 2, 2)])
    inherited = dict(classes=('cat',), palette=published['palette'])
    assert palette_of(inherited, published) == [(2, 2, 2)]
    inherited['classes'] = ('screw',)
    assert palette_of(inherited, published) == distinct_colours(1)
    for odd in ('random', [9], ['red'], [(1, 2)], [(300, 2, 1)], [(1.5, 2, 3)], None):
        assert palette_of(inherited | dict(palette=odd), {}) == distinct_colours(1)
    own = dict(classes=('screw',), palette=[(9, 9, 9)])
    assert palette_of(own, published) == [(9, 9, 9)]
