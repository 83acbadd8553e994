"""Measures of confidence, the rule that brings them to [0, 1], and their map."""

import math

import pytest
import torch
from operators import Operators

from eomt_mm.errors import UserError
from eomt_mm.models.confidence import (
    CONFIDENCES,
    KNEE,
    check_confidence,
    confidence_map,
    to_unit,
)

MEASURES = pytest.mark.parametrize('name', CONFIDENCES)


def unit(scores, name):
    return to_unit(CONFIDENCES[name](scores), name, scores.shape[-1])


@MEASURES
@pytest.mark.parametrize('classes', [2, 7, 150])
def test_between_unclaimed_and_sure(name, classes):
    torch.manual_seed(0)
    found = unit(3 * torch.rand(500, classes), name)
    assert found.shape == (500,) and (found >= 0).all() and (found < 1).all()
    unclaimed, sure = torch.zeros(classes), torch.eye(classes)[0]
    assert unit(unclaimed, name) == pytest.approx(0, abs=1e-6)
    assert unit(sure, name) == pytest.approx(63 / 64, abs=1e-4)


def test_published_formulas():
    scores = torch.tensor([0.9, 0.05, 0.2])
    shares = scores.softmax(0)
    nats = -(shares * shares.log()).sum()
    expected = dict(
        class_score=0.9,
        max_softmax=shares.max(),
        entropy=math.log(3) - nats,
        energy=scores.exp().sum().log() - math.log(3),
        rba=scores.tanh().sum(),
    )
    assert expected.keys() == CONFIDENCES.keys()
    for name, value in expected.items():
        found = CONFIDENCES[name](scores)
        assert float(found) == pytest.approx(float(value), abs=1e-6), name


@MEASURES
def test_order_is_kept_above_one_and_at_sixteen_bits(name):
    """Scores up to the number of queries that may claim a pixel."""
    scores = torch.zeros(400, 19, dtype=torch.float64)
    scores[:, 3] = torch.linspace(0, 4, 400)
    raw = CONFIDENCES[name](scores)
    found = to_unit(raw.clone(), name, 19)
    assert (raw.diff() > 0).all() and (found.diff() > 0).all()
    # Up to a score of 1.5 all of them, 1/100 apart, are at different levels.
    levels = (found[:150] * 65536).floor()
    assert (levels.diff() > 0).all()


def test_the_rule_goes_on_smoothly():
    x = torch.tensor([0.5, KNEE - 1e-4, KNEE, KNEE + 1e-4, 1.0], dtype=torch.float64)
    found = to_unit(x.clone(), 'class_score', 3)
    torch.testing.assert_close(found[:3], x[:3])
    slope = (found[3] - found[1]) / 2e-4
    assert float(slope) == pytest.approx(1, abs=0.01)
    assert float(found[4]) == pytest.approx(1 - 1 / (1024 - 960))


@MEASURES
def test_bands_change_nothing(name):
    torch.manual_seed(0)
    scores = torch.rand(7, 20, 30)
    whole = confidence_map(scores, name, (20, 30), block_bytes=2**30)
    for block_bytes in (1, 20 * 7 * 30 * 3, 2**30):  # one row, three, all
        bands = confidence_map(scores, name, (20, 30), block_bytes)
        torch.testing.assert_close(bands, whole)
    assert confidence_map(scores, name, (41, 57)).shape == (41, 57)


@MEASURES
def test_memory_does_not_grow_with_the_classes(name):
    """Besides the map, a band is all that is held, however many classes there are."""
    peaks = []
    for classes in (5, 50):
        scores = torch.rand(classes, 60, 40)
        with Operators() as held:
            confidence_map(scores, name, (60, 40), block_bytes=40_000)
        peaks.append(held.peak - 4 * 60 * 40 - scores.nbytes)
    assert max(peaks) <= 40_000


@MEASURES
def test_scores_are_not_changed(name):
    scores = torch.rand(7, 4, 5)
    before = scores.clone()
    confidence_map(scores, name, (4, 5))
    assert (scores == before).all()


def test_unknown_measure():
    with pytest.raises(UserError, match="'margin', expected None or one of"):
        check_confidence('margin')
