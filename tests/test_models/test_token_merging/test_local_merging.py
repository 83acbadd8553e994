"""Local merging, against pairwise similarities written out."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from eomt_mm.models import ALGM
from eomt_mm.models.token_merging import MergePoint
from eomt_mm.models.token_merging.merge import merge_means
from eomt_mm.models.token_merging.window_merges import (
    WindowMerges,
    window_of_patch,
    window_similarity,
)


def pairwise(tokens, grid, window):
    """Mean cosine similarity over all ordered pairs i != j of each window."""
    scores = []
    for top in range(0, grid[0] - window + 1, window):
        for left in range(0, grid[1] - window + 1, window):
            members = [
                tokens[(top + i) * grid[1] + left + j]
                for i in range(window)
                for j in range(window)
            ]
            pairs = [
                F.cosine_similarity(a, b, dim=0)
                for a, b in itertools.permutations(members, 2)
            ]
            scores.append(torch.stack(pairs).mean())
    return torch.stack(scores)


@pytest.mark.parametrize('grid', [(6, 8), (7, 8), (6, 9), (7, 7)])
@pytest.mark.parametrize('window', [2, 3])
def test_similarity_equals_that_of_all_pairs(grid, window):
    torch.manual_seed(0)
    tokens = torch.randn(2, grid[0] * grid[1], 12) + 1
    expected = torch.stack([pairwise(t, grid, window) for t in tokens.double()])
    found = window_similarity(tokens, grid, window)
    torch.testing.assert_close(found, expected.float(), atol=4e-7, rtol=0)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def test_no_tensor_of_pairs_is_made():
    tokens = torch.randn(2, 64, 32)
    with LargestTensor() as largest:
        window_similarity(tokens, (8, 8), 2)
    assert largest.elements == tokens.numel()


def test_similarity_is_computed_in_single_precision():
    """Tokens may be in half precision, or so large that they would overflow it."""
    torch.manual_seed(0)
    tokens = (100 + torch.randn(1, 16, 64)).half()
    found = window_similarity(tokens, (4, 4), 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, window_similarity(tokens.float(), (4, 4), 2))


def propose(tokens, grid, **options):
    method = ALGM(global_block=None, **options)
    method.bind(12, 9, grid)
    return method.propose(MergePoint(1, tokens, grid, None))


def test_a_threshold_of_one_merges_nothing():
    """Not even equal tokens, whose similarity rounding takes to 1 and above."""
    torch.manual_seed(0)
    tokens = torch.randn(32, 1, 30).expand(-1, 16, -1)
    assert (window_similarity(tokens, (4, 4), 2) >= 1).any()
    assert propose(tokens, (4, 4), threshold=1.0).counts == [0] * 32
    assert propose(tokens, (4, 4), threshold=0.999).counts == [4] * 32


def test_the_lowest_threshold_is_average_pooling():
    torch.manual_seed(0)
    tokens = torch.randn(2, 48, 8)
    merges = propose(tokens, (6, 8), threshold=-1)
    assert merges.counts == [12, 12] and merges.tokens_left(12) == 12
    target = merges.target(range(2), 12)
    merged, sizes = merge_means(tokens, torch.ones(2, 48), target, 12)
    maps = tokens.transpose(1, 2).unflatten(2, (6, 8))
    pooled = F.avg_pool2d(maps, 2).flatten(2).transpose(1, 2)
    # Windows come by similarity: look each up by the place of its first patch.
    first = target.unflatten(1, (6, 8))[:, ::2, ::2].flatten(1)
    found = merged.gather(1, first[..., None].expand(-1, -1, 8))
    torch.testing.assert_close(found, pooled, atol=1e-7, rtol=0)
    assert (sizes == 4).all()


def test_order_is_windows_by_similarity_then_the_rest_in_raster_order():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.9]])
    merges = WindowMerges(scores, [3], (4, 4), 2)
    assert merges.target([0], 3).view(4, 4).tolist() == [
        [3, 4, 0, 0],
        [5, 6, 0, 0],
        [2, 2, 1, 1],
        [2, 2, 1, 1],
    ]


def test_odd_rows_and_columns_are_in_no_window():
    assert window_of_patch((3, 5), 2).view(3, 5).tolist() == [
        [0, 0, 1, 1, 2],
        [0, 0, 1, 1, 2],
        [2, 2, 2, 2, 2],
    ]
    tokens = torch.randn(1, 15, 8)
    merges = propose(tokens, (3, 5), threshold=-1)
    target = merges.target([0], 2).view(3, 5)
    assert merges.tokens_left(2) == 9
    assert sorted(target[2].tolist() + target[:2, 4].tolist()) == [2, 3, 4, 5, 6, 7, 8]


def test_counts_follow_the_threshold():
    torch.manual_seed(0)
    tokens = torch.randn(3, 64, 4) + 1
    scores = window_similarity(tokens, (8, 8), 2)
    merges = propose(tokens, (8, 8), threshold=0.4)
    assert merges.counts == [(row >= 0.4).sum().item() for row in scores]
    assert len(set(merges.counts)) > 1


def test_fixed_sizes_keep_the_share_asked_for():
    merges = propose(torch.randn(2, 256, 4), (16, 16), keep=(0.4, 1.0))
    assert merges.counts == 51  # 0.6 * 256 / 3
    assert merges.tokens_left(51) == 103  # 0.402 of 256
