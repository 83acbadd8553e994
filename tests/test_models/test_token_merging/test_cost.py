"""Multiply-accumulates and tokens, against the paper's tables and by hand."""

from functools import partial

import pytest
import torch
from torch import nn

from eomt_mm.models import MaskHead, MergingViT
from eomt_mm.models.network import Network
from measuring.operations import count_operations
from measuring.tokens import count_tokens, forward_macs


def on_meta(img_size, num_queries, classes, **options):
    """EoMT-L without memory; counting its operations takes no time."""
    with torch.device('meta'):
        vit = MergingViT(
            'vit_large_patch14_reg4_dinov2',
            img_size,
            num_queries=num_queries,
            pretrained=False,
            **options,
        ).eval()
        return vit, MaskHead(1024, classes), torch.empty(1, 3, img_size, img_size)


def costs(vit, head, images):
    """Counted operation by operation, and by the formula."""
    with count_tokens(vit) as tokens:
        counted = count_operations(
            lambda: head(*vit(images)), nn.ModuleList([vit, head])
        )
    return counted / 1e9, forward_macs(vit, head, tokens) / 1e9, tokens


@pytest.mark.parametrize(
    ('img_size', 'num_queries', 'classes', 'paper'),
    [(640, 200, 133, 669), (1280, 200, 133, 4146), (1024, 100, 19, 4350 / 2)],
)
def test_gflops_of_the_plain_model_are_the_papers(
    img_size, num_queries, classes, paper
):
    """Attention included, which some counters leave out: 536 G at 640 pixels."""
    counted, formula, _ = costs(*on_meta(img_size, num_queries, classes))
    assert counted == pytest.approx(paper, rel=0.005)
    # The count has the norms besides.
    assert formula <= counted <= 1.002 * formula


def test_gflops_of_known_numbers_of_tokens_are_the_formulas():
    """0.40 of the tokens after block 1 and half of them after block 12.

    One of the settings that give the paper's 1183 GFLOPs for two windows (Table 9). No
    step waits for the device: on this one there would be nothing to wait for.
    """
    method = dict(type='eomt_mm.ALGM', keep=(0.4, 0.5), global_block=12)
    counted, formula, tokens = costs(*on_meta(1024, 100, 19, token_merging=method))
    first, second = 4096 - 3 * round(0.6 * 4096 / 3), round(4096 * 0.2)
    assert tokens.means() == ([5 + first] * 11 + [5 + second] * 9 + [105 + second] * 4)
    assert tokens.attended[0] == [(1, 4101)]
    assert tokens.attended[11] == [(1, 5 + first)]
    by_hand = sum(
        4 * 1024**2 * n + 2 * n * n * 1024 + 8 * 1024**2 * m
        for n, m in zip(
            [4101] + [5 + first] * 11 + [5 + second] * 8 + [105 + second] * 4,
            tokens.means(),
            strict=True,
        )
    )
    rest = 97e9  # patch embedding, upscaling and masks
    assert formula == pytest.approx((by_hand + rest) / 1e9, rel=0.005)
    assert counted == pytest.approx(formula, rel=0.005)
    assert 2 * counted == pytest.approx(1183, rel=0.005)


def test_proportional_attention_is_counted_with_its_extra_channels():
    """2 % of EoMT-L, more where heads are narrower; in block 1 all weigh the same."""
    method = dict(type='eomt_mm.ALGM', keep=(0.4, 0.5), global_block=12)
    plain = costs(*on_meta(1024, 100, 19, token_merging=method))
    method['proportional_attention'] = True
    counted, formula, _ = costs(*on_meta(1024, 100, 19, token_merging=method))
    assert formula - plain[1] > 9
    assert formula - plain[1] == pytest.approx(counted - plain[0], rel=0.001)


@pytest.mark.parametrize('policy', ['min', 'group', 'image'])
def test_extra_channels_of_narrow_heads(tiny, head, images, policy):
    """Heads of 8 channels, whose attention takes twice as much."""
    method = dict(type='eomt_mm.ALGM', threshold=0.75, global_block=3, policy=policy)
    found = []
    for proportional in (False, True):
        vit = tiny(method | dict(proportional_attention=proportional))
        run = partial(Network(vit, head), images)
        with count_tokens(vit) as tokens:
            counted = count_operations(run, vit) / len(images)
        found.append((counted, forward_macs(vit, head, tokens), tokens.means()))
    # Block 2 attends by other weights, so that block 3 may merge a token more or less.
    (counted, formula, means), (counted_too, formula_too, means_too) = found
    assert means[:2] == means_too[:2]
    assert formula_too > 1.02 * formula
    assert counted_too / formula_too == pytest.approx(counted / formula, rel=0.005)


@pytest.mark.parametrize('arch', ['dinov2', 'eva02', 'dinov3'])
@pytest.mark.parametrize('policy', ['min', 'group', 'image'])
def test_formula_equals_the_count_for_mixed_batches(tiny, head, images, arch, policy):
    """The cost is the mean over images of different lengths, with every policy."""
    method = dict(type='eomt_mm.ALGM', threshold=0.75, global_block=3, policy=policy)
    vit = tiny(method, arch=arch)
    with count_tokens(vit) as tokens:
        counted = count_operations(lambda: head(*vit(images)), vit) / len(images)
    formula = forward_macs(vit, head, tokens)
    # The count has norms and the similarities of the global merge besides.
    assert formula <= counted <= 1.05 * formula
    assert all(sum(b for b, _ in passes) == 4 for passes in tokens.processed)


def test_hooks_are_gone_afterwards(tiny, images):
    vit = tiny()
    with count_tokens(vit) as tokens, torch.no_grad():
        vit(images)
    assert tokens.means() == [69.0] * 3 + [72.0] * 2
    with torch.no_grad():
        vit(images)
    assert len(tokens.processed[0]) == 1
