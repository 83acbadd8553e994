"""Merging and unmerging as maps, against sets of tokens kept by hand."""

import pytest
import torch

from eomt_mm.models.token_merging.bipartite import PairMerges, best_partners
from eomt_mm.models.token_merging.merge import compose, merge_means, unmerge
from eomt_mm.models.token_merging.window_merges import WindowMerges, window_similarity

GRID = (8, 6)
N = GRID[0] * GRID[1]


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    return torch.randn(3, N, 16)


def merge_twice(tokens, windows=5, pairs=7):
    """Local, then global merging: tokens, sizes and the composed map."""
    batch = range(len(tokens))
    scores = window_similarity(tokens, GRID, 2)
    local = WindowMerges(scores, [windows] * len(tokens), GRID, 2)
    first = local.target(batch, windows)
    n = local.tokens_left(windows)
    x, sizes = merge_means(tokens, torch.ones(tokens.shape[:2]), first, n)
    pairing = PairMerges(*best_partners(x), [pairs] * len(tokens), n)
    second = pairing.target(batch, pairs)
    x, sizes = merge_means(x, sizes, second, pairing.tokens_left(pairs))
    return x, sizes, compose(compose(None, first), second)


def test_sizes_sum_to_the_number_of_patches(tokens):
    x, sizes, _ = merge_twice(tokens)
    assert x.shape == (3, N - 5 * 3 - 7, 16)
    assert torch.equal(sizes.sum(1), torch.full((3,), float(N)))
    assert (sizes >= 1).all() and (sizes % 1 == 0).all()


def test_composed_map_is_in_range_and_onto(tokens):
    x, sizes, source = merge_twice(tokens)
    assert source.dtype == torch.int64 and source.shape == (3, N)
    for b in range(3):
        counts = torch.bincount(source[b], minlength=x.shape[1])
        assert len(counts) == x.shape[1]
        assert torch.equal(counts.float(), sizes[b])


def test_unmerging_gives_the_plain_mean_of_each_group(tokens):
    """Sizes count the original patches after two merges."""
    x, _, source = merge_twice(tokens)
    full = unmerge(x, source)
    for b in range(3):
        for p in range(N):
            group = source[b] == source[b, p]
            torch.testing.assert_close(full[b, p], tokens[b, group].mean(0))


def test_a_token_alone_keeps_its_bits(tokens):
    x, sizes, source = merge_twice(tokens)
    alone = sizes.gather(1, source) == 1
    assert alone.any() and not alone.all()
    assert torch.equal(unmerge(x, source)[alone], tokens[alone])


def test_norm_and_unmerging_commute_exactly(tokens):
    x, _, source = merge_twice(tokens)
    norm = torch.nn.LayerNorm(16)
    torch.nn.init.normal_(norm.weight)
    assert torch.equal(norm(unmerge(x, source)), unmerge(norm(x), source))


def test_half_precision_is_averaged_in_single():
    """Weights such as 1/3 would be rounded to 8 bits otherwise."""
    x = torch.full((1, 3, 4), 1.0078125, dtype=torch.bfloat16)
    mean, sizes = merge_means(x, torch.ones(1, 3), torch.zeros(1, 3).long(), 1)
    assert mean.dtype == torch.bfloat16
    assert torch.equal(mean, x[:, :1]) and sizes.item() == 3


def test_images_do_not_mix(tokens):
    x, _, _ = merge_twice(tokens)
    alone, _, _ = merge_twice(tokens[1:2])
    torch.testing.assert_close(x[1:2], alone)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_order_of_summation_is_fixed_on_a_gpu():
    x = torch.randn(2, 4096, 256, device='cuda')
    target = torch.randint(8, (2, 4096), device='cuda')
    sizes = torch.ones(2, 4096, device='cuda')
    first, _ = merge_means(x, sizes, target, 8)
    for _ in range(5):
        assert torch.equal(merge_means(x, sizes, target, 8)[0], first)
