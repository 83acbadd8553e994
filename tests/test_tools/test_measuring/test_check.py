"""Whether results of contenders count as the same."""

import pytest
import torch

from eomt_mm.models.postprocess import Instances
from measuring.check import TrainingStep, compare

ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    ('classes', 'masks', 'text', 'same'),
    [
        (ONES, ONES, 'equal', True),
        (ONES, ONES * (1 + 5e-6), 'within 5e-06', True),
        (ONES, ONES * 1.1, 'within 1e-01, 0.00% of mask signs differ', False),
        (ONES, ONES * float('nan'), 'not numbers', False),
        (ONES * float('nan'), ONES, 'not numbers', False),
    ],
)
def test_logits(classes, masks, text, same):
    found = compare((classes, masks), (ONES, ONES))
    assert found.same == same
    assert found.text.replace('6e-06', '5e-06') == text


@pytest.mark.parametrize(('factor', 'same'), [(1 + 1e-5, True), (1.1, False)])
def test_training_steps(factor, same):
    step = TrainingStep((ONES, ONES), [ONES])
    found = compare(TrainingStep((ONES, ONES), [ONES * factor]), step)
    assert found.same == same
    assert 'gradients within' in found.text
    # Of another loss there are no gradients to compare.
    assert compare(TrainingStep((ONES, ONES), []), step) == ('equal', True)


def test_maps():
    """A pixel in ten thousand may fall to a neighbour, but no segment come or go."""
    ids = torch.zeros(200, 200, dtype=torch.int64)
    ids[:, 100:] = 5
    assert compare(ids.clone(), ids) == ('equal (2 ids)', True)
    moved = ids.clone()
    moved[0, 99] = 5
    assert compare(moved, ids).same
    moved[0, 99] = 7
    assert not compare(moved, ids).same
    assert not compare(ids[:-1], ids).same


def test_instances():
    def make(count):
        masks = torch.zeros(count, 4, 4, dtype=torch.bool)
        return Instances(torch.ones(count), torch.ones(count), masks, torch.ones(count))

    assert compare(make(0), make(0)).same
    assert compare(make(2), make(2)).same
    assert compare(make(1), make(2)) == ('1 against 2 instances', False)
