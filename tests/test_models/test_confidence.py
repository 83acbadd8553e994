"""Measures of confidence and their map."""

import math

import pytest
import torch

from eomt_mm.errors import UserError
from eomt_mm.models.confidence import CONFIDENCES, check_confidence, confidence_map


@pytest.mark.parametrize('name', CONFIDENCES)
def test_between_unclaimed_and_sure(name):
    torch.manual_seed(0)
    scores = torch.rand(50, 7)
    found = CONFIDENCES[name](scores)
    assert found.shape == (50,) and (found >= 0).all() and (found <= 1).all()
    unclaimed, sure = torch.zeros(7), torch.eye(7)[0]
    low, high = (CONFIDENCES[name](s) for s in (unclaimed, sure))
    assert 0 <= low < high <= 1


def test_published_formulas():
    scores = torch.tensor([0.9, 0.05, 0.2])
    shares = scores.softmax(0)
    nats = -(shares * shares.log()).sum()
    expected = dict(
        class_score=0.9,
        max_softmax=shares.max(),
        entropy=1 - nats / math.log(3),
        energy=scores.exp().sum().log() - math.log(3),
        rba=1 - (-scores.tanh().sum()).exp(),
    )
    for name, value in expected.items():
        found = CONFIDENCES[name](scores)
        assert float(found) == pytest.approx(float(value), abs=1e-6), name


@pytest.mark.parametrize('name', CONFIDENCES)
def test_bands_change_nothing(name, monkeypatch):
    torch.manual_seed(0)
    scores = torch.rand(7, 20, 30)
    whole = confidence_map(scores, name, (20, 30))
    monkeypatch.setattr('eomt_mm.models.confidence.BAND', 7 * 30 * 3)
    torch.testing.assert_close(confidence_map(scores, name, (20, 30)), whole)
    assert confidence_map(scores, name, (41, 57)).shape == (41, 57)


def test_unknown_measure():
    with pytest.raises(UserError, match="'margin', expected None or one of"):
        check_confidence('margin')
