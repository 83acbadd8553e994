"""The threshold of token merging from similarities and scores."""

import pytest
import torch

from measuring.calibration import Trial, lowest_within, merged_fraction, threshold_for


@pytest.mark.parametrize('fraction', [0.0, 0.1, 0.5, 0.77, 1.0])
def test_the_threshold_lets_the_share_pass(fraction):
    torch.manual_seed(0)
    similarities = (2 * torch.rand(1000) - 1).sort().values
    threshold = threshold_for(similarities, fraction)
    assert merged_fraction(similarities, threshold) == pytest.approx(fraction, abs=1e-3)
    assert (similarities >= threshold).sum() >= round(fraction * 1000)


@pytest.mark.parametrize(
    ('loss', 'expected'), [(0.2, None), (0.3, 0.9), (1, 0.8), (20, 0.7)]
)
def test_the_lowest_threshold_within_a_loss(loss, expected):
    trials = zip((None, 0.9, 0.8, 0.7), (80.75, 80.5, 80.0, 64.0), strict=True)
    plain, *tried = (Trial(t, 0, [], 0, score) for t, score in trials)
    found = lowest_within(plain, tried, loss)
    assert (found and found.threshold) == expected
