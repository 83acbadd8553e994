"""How a batch is divided, against all divisions there are."""

import pytest
import torch

from eomt_mm.models.token_merging.batching import MIN_GAIN, partition


def padded(lengths, groups):
    return sum(len(g) * max(lengths[i] for i in g) for g in groups)


def divisions(items):
    """All ways to divide a list into groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for division in divisions(rest):
        yield [[first], *division]
        for i in range(len(division)):
            yield [*division[:i], [first, *division[i]], *division[i + 1 :]]


def test_one_group_and_single_images():
    assert partition([5, 3, 9], 'min', 4) == [[0, 1, 2]]
    assert partition([5, 3, 9], 'image', 4) == [[0], [1], [2]]


@pytest.mark.parametrize('max_groups', [1, 2, 3, 4])
def test_groups_keep_the_fewest_tokens(max_groups):
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        lengths = torch.randint(100, 1000, (7,), generator=generator).tolist()
        groups = partition(lengths, 'group', max_groups)
        assert sorted(i for g in groups for i in g) == list(range(7))
        assert all(g == sorted(g) for g in groups)
        assert len(groups) <= max_groups
        best = min(
            padded(lengths, division)
            for division in divisions(list(range(7)))
            if len(division) <= max_groups
        )
        slack = MIN_GAIN * (max_groups - len(groups)) * padded(lengths, [[*range(7)]])
        assert best <= padded(lengths, groups) <= best + slack


def test_one_busy_image_does_not_hold_the_others_back():
    lengths = [100, 100, 4096, 100]
    groups = partition(lengths, 'group', 4)
    assert groups == [[2], [0, 1, 3]]
    assert padded(lengths, groups) < 0.3 * padded(lengths, partition(lengths, 'min', 4))


def test_no_group_is_made_for_nothing():
    assert partition([100] * 6, 'group', 4) == [list(range(6))]
    assert partition([1000, 999, 998, 1000], 'group', 4) == [[0, 1, 2, 3]]
    assert partition([7], 'group', 4) == [[0]]
