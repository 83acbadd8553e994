"""Targets of the criterion from what MMDetection loads."""

import pytest
import torch

from eomt_mm.errors import UserError
from eomt_mm.models.criterion import Target
from eomt_mm.models.targets import panoptic_targets


def test_targets_are_instances_and_one_mask_per_class_of_stuff():
    labels = torch.tensor([[[0, 0, 3], [255, 3, 4]], [[1, 1, 255]] * 2])
    mask = torch.tensor([[[1, 0, 0], [0, 0, 0]]]).bool()
    things = [
        Target(torch.tensor([0]), mask),
        Target(torch.tensor([], dtype=torch.int64), mask[:0]),  # a crowd only
    ]
    first, second = panoptic_targets(things, labels, 3, 5, 255, ['a', 'b'])
    assert first.labels.tolist() == [0, 3, 4]
    assert first.masks.int().tolist() == [
        [[1, 0, 0], [0, 0, 0]],
        [[0, 0, 1], [0, 1, 0]],
        [[0, 0, 0], [0, 0, 1]],
    ]
    assert second.masks.shape == (0, 2, 3)
    assert panoptic_targets(things, None, 3, 3, 255, ['a', 'b']) == things


def test_targets_of_a_wrong_class_name_it_and_the_file():
    mask = torch.ones(1, 2, 2).bool()
    fine, wrong = (Target(torch.tensor([i]), mask) for i in (2, 3))
    with pytest.raises(UserError, match=r'class 3 .* b\.png: expected 0 to 2'):
        panoptic_targets([fine, wrong], None, 3, 3, 255, ['a.png', 'b.png'])
    labels = torch.full((1, 2, 2), 5)
    with pytest.raises(UserError, match=r'label 5 .* a\.png: expected 0 to 4'):
        panoptic_targets([fine], labels, 3, 5, 255, ['a.png'])
