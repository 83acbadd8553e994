"""Split attention equals the full N x N mask; who may see whom."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Attention

from eomt_mm.models.masked_attention import (
    SplitAttention,
    query_patch_mask,
    split_attention,
)

B, HEADS, K, PREFIX, N, D = 2, 3, 4, 5, 16, 8
T = K + PREFIX + N


def full_mask(mask):
    """The N x N mask written out: all open but query rows x patch columns."""
    full = torch.ones(B, T, T, dtype=torch.bool)
    full[:, :K, K + PREFIX :] = mask
    return full[:, None]


def test_output_and_gradients_equal_full_mask():
    torch.manual_seed(0)
    qkv = [torch.randn(B, HEADS, T, D, requires_grad=True) for _ in range(3)]
    mask = torch.rand(B, K, N) > 0.5
    weight = torch.randn(B, HEADS, T, D)

    ours = split_attention(*qkv, mask)
    grads = torch.autograd.grad((ours * weight).sum(), qkv)
    theirs = F.scaled_dot_product_attention(*qkv, attn_mask=full_mask(mask))
    expected = torch.autograd.grad((theirs * weight).sum(), qkv)

    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for grad, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, want, rtol=1e-5, atol=1e-6)


def test_query_without_patches_is_finite():
    q, k, v = (torch.randn(B, HEADS, T, D) for _ in range(3))
    out = split_attention(q, k, v, torch.zeros(B, K, N, dtype=torch.bool))
    assert out.isfinite().all()
    # It sees exactly the queries and the prefix.
    few = F.scaled_dot_product_attention(
        q[:, :, :K], k[:, :, : K + PREFIX], v[:, :, : K + PREFIX]
    )
    torch.testing.assert_close(out[:, :, :K], few)


def test_module_keeps_timms_parameters_and_forward():
    torch.manual_seed(0)
    theirs = Attention(24, num_heads=HEADS, qkv_bias=True)
    ours = SplitAttention(24, num_heads=HEADS, qkv_bias=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(B, T, 24)
    assert torch.equal(ours(x), theirs(x))

    mask = torch.rand(B, K, N) > 0.5
    torch.testing.assert_close(
        ours(x, mask), theirs(x, attn_mask=full_mask(mask)), rtol=1e-5, atol=1e-6
    )


def test_mask_is_the_mean_of_the_central_cells_above_zero():
    """Bilinear reduction by 4, not antialiased: the central 2 x 2 of each cell."""
    torch.manual_seed(0)
    logits = torch.randn(B, K, 16, 16)
    central = logits.unflatten(3, (4, 4)).unflatten(2, (4, 4))[:, :, :, 1:3, :, 1:3]
    expected = central.mean(dim=(3, 5)).flatten(2) > 0
    assert torch.equal(query_patch_mask(logits, (4, 4), prob=1.0), expected)


def test_a_logit_of_zero_is_masked():
    assert not query_patch_mask(torch.zeros(1, 1, 16, 16), (4, 4), prob=1.0).any()


@pytest.mark.parametrize('prob', [0.2, 0.7])
def test_queries_are_freed_whole_with_probability_one_minus_p(prob):
    torch.manual_seed(0)
    mask = query_patch_mask(torch.full((50, 100, 8, 8), -1.0), (4, 4), prob)
    freed = mask.all(dim=2)
    assert torch.equal(freed, mask.any(dim=2)), 'a row is freed whole or not at all'
    assert freed.float().mean().item() == pytest.approx(1 - prob, abs=0.03)


def test_no_gradient_flows_through_the_mask():
    logits = torch.randn(1, K, 16, 16, requires_grad=True)
    assert not query_patch_mask(logits, (4, 4), prob=0.5).requires_grad
