"""Attention weighted by token sizes, against tokens written out repeatedly."""

import pytest
import torch
import torch.nn.functional as F

from eomt_mm.models.token_merging.attention import (
    attend_by_size,
    proportional_attention,
)


@pytest.fixture
def qkv():
    torch.manual_seed(0)
    return [torch.randn(2, 3, 9, 16, dtype=torch.float64) for _ in range(3)]


@pytest.fixture
def sizes():
    return torch.tensor([[1, 1, 4, 4, 16, 1, 2, 3, 7], [4] * 9], dtype=torch.float64)


def repeated(q, k, v, sizes):
    """Plain attention with every key and value as often as its size says."""
    out = []
    for b in range(len(q)):
        times = sizes[b].long()
        keys, values = (t[b].repeat_interleave(times, dim=1) for t in (k, v))
        weights = (q[b] @ keys.mT / q.shape[-1] ** 0.5).softmax(-1)
        out.append(weights @ values)
    return torch.stack(out)


def test_equals_attention_over_repeated_keys(qkv, sizes):
    found = proportional_attention(*qkv, sizes)
    torch.testing.assert_close(found, repeated(*qkv, sizes), atol=3e-15, rtol=0)


def test_sizes_of_one_change_nothing(qkv):
    found = proportional_attention(*qkv, torch.ones(2, 9, dtype=torch.float64))
    expected = F.scaled_dot_product_attention(*qkv)
    torch.testing.assert_close(found, expected, atol=1e-15, rtol=0)


def test_the_bias_is_not_rounded_in_half_precision(qkv, sizes):
    """Equal queries, keys and values in half precision, so that the bias is all."""
    q, k, v = (t.bfloat16() for t in qkv)
    v = torch.ones_like(v).cumsum(2)
    found = proportional_attention(q, k, v, sizes.float()).double()
    exact = repeated(q.double(), k.double(), v.double(), sizes)
    plain = F.scaled_dot_product_attention(q, k, v).double()
    unweighted = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    # No worse than what rounding does to attention without any sizes.
    assert (found - exact).abs().max() <= 1.5 * (plain - unweighted).abs().max()


def test_no_attention_mask_is_used(qkv, sizes, monkeypatch):
    seen = []
    monkeypatch.setattr(
        F,
        'scaled_dot_product_attention',
        lambda q, k, v, **kwargs: seen.append((q.shape, kwargs)) or v,
    )
    proportional_attention(*qkv, sizes)
    ((shape, kwargs),) = seen
    assert kwargs == {'scale': 0.25} and shape[-1] == 24


@pytest.mark.parametrize('arch', ['dinov2', 'eva02', 'dinov3'])
def test_without_sizes_it_is_the_layer(tiny, arch):
    vit = tiny(arch=arch)
    attn, x, rope = vit.blocks[0].attn, torch.randn(2, 70, 32), vit.rotary_codes()
    with torch.no_grad():
        expected = attn(x) if rope is None else attn(x, rope)
        found, keys = attend_by_size(attn, x, rope)
    assert torch.equal(found, expected)
    assert keys.shape == (2, 4, 70, 8)
