"""Global merging, against loops over all pairs."""

import pytest
import torch
import torch.nn.functional as F

from eomt_mm.models import ALGM, ToMe
from eomt_mm.models.token_merging import MergePoint
from eomt_mm.models.token_merging.algm import adaptive_threshold
from eomt_mm.models.token_merging.bipartite import PairMerges, best_partners


@pytest.mark.parametrize('n', [8, 9])
def test_partners_are_the_most_similar_at_odd_places(n):
    torch.manual_seed(0)
    x = torch.randn(2, n, 5)
    scores, partners = best_partners(x)
    assert scores.shape == partners.shape == (2, (n + 1) // 2)
    for b in range(2):
        for i, a in enumerate(range(0, n, 2)):
            similar = [
                F.cosine_similarity(x[b, a], x[b, o], dim=0) for o in range(1, n, 2)
            ]
            similar = torch.stack(similar)
            assert partners[b, i] == similar.argmax()
            torch.testing.assert_close(scores[b, i], similar.max())


def test_memory_is_bounded_without_changing_the_result():
    torch.manual_seed(0)
    x = torch.randn(2, 33, 5)
    whole, parts = best_partners(x), best_partners(x, max_elements=40)
    torch.testing.assert_close(whole[0], parts[0])
    assert torch.equal(whole[1], parts[1])


def test_similarities_are_in_single_precision_under_autocast():
    torch.manual_seed(0)
    x = torch.randn(1, 40, 64) + 3
    expected, _ = best_partners(x)
    with torch.autocast('cpu', torch.bfloat16):
        found, _ = best_partners(x)
        half, _ = best_partners(x.bfloat16())
    assert torch.equal(found, expected)
    assert half.dtype == torch.float32


def test_order_is_the_rest_of_the_first_set_then_the_second():
    scores = torch.tensor([[0.9, 0.1, 0.8, 0.9]])
    partners = torch.tensor([[2, 0, 2, 1]])
    merges = PairMerges(scores, partners, [3], 7)
    assert merges.tokens_left(3) == 4
    # A stands at the even places: its second token stays, as 0; B becomes 1, 2, 3.
    assert merges.target([0], 3).tolist() == [[3, 1, 0, 2, 3, 3, 2]]
    # Ties go to the earlier token.
    assert merges.target([0], 1).tolist() == [[5, 3, 0, 4, 1, 5, 2]]


def test_threshold_is_the_images_own_mean_and_deviation():
    torch.manual_seed(0)
    scores = torch.rand(2, 9)
    expected = [
        row.mean() + ((row - row.mean()) ** 2).sum().div(8).sqrt() / 7 for row in scores
    ]
    found = adaptive_threshold(scores, 7)
    torch.testing.assert_close(found, torch.stack(expected)[:, None])


def global_merges(tokens, block=2, **options):
    method = ALGM(local_block=None, global_block=block, **options)
    method.bind(12, 9, (8, 8))
    return method.propose(MergePoint(block, tokens, None, None))


def test_counts_of_the_global_merge():
    torch.manual_seed(0)
    tokens = torch.randn(3, 31, 6)
    merges = global_merges(tokens)
    scores, _ = best_partners(tokens)
    limits = scores.mean(1) + scores.std(1) / 2
    expected = [
        (row >= limit).sum().item() for row, limit in zip(scores, limits, strict=True)
    ]
    assert merges.counts == expected and 0 < min(expected) < 16


def test_half_of_the_tokens_at_most():
    merges = global_merges(torch.randn(2, 31, 6), keep=(1.0, 0.5))
    assert merges.counts == 16
    assert merges.tokens_left(16) == 15
    assert merges.target([0], 16).unique().tolist() == list(range(15))


@pytest.mark.parametrize('n', [1, 2, 3])
def test_too_few_tokens_for_a_deviation_are_left_alone(n):
    assert global_merges(torch.randn(1, n, 6)) is None


def test_tome_merges_a_fixed_number_by_keys():
    torch.manual_seed(0)
    method = ToMe(r=3)
    method.bind(12, 9, (4, 4))
    assert method.blocks == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    keys = torch.randn(2, 16, 4)
    merges = method.propose(MergePoint(1, torch.randn(2, 16, 8), (4, 4), keys))
    assert merges.counts == 3
    assert torch.equal(merges.scores, best_partners(keys)[0])
    few = method.propose(MergePoint(1, torch.randn(2, 5, 8), None, keys[:, :5]))
    assert few.counts == 2
