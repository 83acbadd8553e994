"""Products and attention by oneDNN against PyTorch's own, and against float64."""

import pytest
import torch
import torch.nn.functional as F

from eomt_mm.models import onednn, onednn_attention
from eomt_mm.models.onednn_attention import attention_in_pieces, largest_logits


def qkv(dtype=torch.float32, tokens=37):
    torch.manual_seed(0)
    # As the layers make them: not contiguous.
    return torch.randn(2, tokens, 3, 3, 8).to(dtype).permute(2, 0, 3, 1, 4)


@pytest.fixture
def fallbacks(monkeypatch):
    """The queries that were left to the softmax, of each call."""
    calls, attend = [], onednn_attention.attend_by_softmax

    def spy(q, *args):
        calls.append(q)
        return attend(q, *args)

    monkeypatch.setattr(onednn_attention, 'attend_by_softmax', spy)
    return calls


@pytest.mark.parametrize('at_once', [1, 100, 500])
def test_attention_in_pieces_equals_the_fused_kernel(monkeypatch, at_once):
    """Whatever number of rows is computed at once."""
    at_once = dict.fromkeys(onednn_attention.WEIGHTS_AT_ONCE, at_once)
    monkeypatch.setattr(onednn_attention, 'WEIGHTS_AT_ONCE', at_once)
    monkeypatch.setattr(onednn_attention, 'LEAST_ROWS', 1)
    q, k, v = qkv()
    out = attention_in_pieces(q, k, v)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    # What the layer behind it wants: channels of all heads side by side.
    assert out.transpose(1, 2).is_contiguous()


def test_attention_in_bf16_is_as_close_as_bf16_is():
    q, k, v = qkv(torch.bfloat16)
    exact = F.scaled_dot_product_attention(*(t.double() for t in (q, k, v)))
    out = attention_in_pieces(q, k, v)
    assert (out.double() - exact).norm() / exact.norm() < 2 * 2**-8


@pytest.mark.parametrize('dims', [64, 32])  # sqrt(32) is no power of two
@pytest.mark.parametrize('kind', ['common', 'outliers', 'peaks', 'sharp'])
def test_attention_in_bf16_is_as_exact_as_pytorchs(fallbacks, kind, dims):
    """Also where rounded products of q and k would be magnified by the softmax."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 500, dims) for _ in range(3))
    if kind == 'common':  # a channel that all keys share, as a bias or a sink does
        q[..., 0] += 8
        k[..., 0] += 400
    elif kind == 'outliers':
        k[..., ::250, :] *= 5
    elif kind == 'peaks':
        q, k = 2 * q, 2 * k
    else:  # beyond what one exponential in fp32 can hold
        q, k = 4 * q, 4 * k
    q, k, v = (x.bfloat16() for x in (q, k, v))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())

    def error(out):
        return (out.double() - exact).norm() / exact.norm()

    theirs = error(F.scaled_dot_product_attention(q, k, v))
    assert error(attention_in_pieces(q, k, v)) < 2 * theirs
    assert bool(fallbacks) == (kind == 'sharp')


def test_only_rows_out_of_range_are_left_to_the_softmax(fallbacks):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 200, 64)
    q[0, 0, [25, 133]] *= 30
    q, k, v = (x.bfloat16() for x in (q, k, v))
    out = attention_in_pieces(q, k, v)
    (left,) = fallbacks
    assert torch.equal(left, q[0, 0, [25, 133]].float() / 8)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    error = (out.double() - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert error.amax() < 0.02


def test_nan_and_infinity_spoil_their_own_rows_alone():
    q, k, v = qkv(torch.bfloat16)
    expected = attention_in_pieces(q, k, v)
    q = q.clone()
    q[0, 1, 5] = torch.nan
    q[1, 2, 7, 0] = torch.inf
    out = attention_in_pieces(q, k, v)
    assert out[0, 1, 5].isnan().all() and out[1, 2, 7].isnan().all()
    rows = torch.ones(out.shape[:3], dtype=torch.bool)
    rows[0, 1, 5] = rows[1, 2, 7] = False
    torch.testing.assert_close(out[rows], expected[rows], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('tokens', [1, 63, 64, 65, 200])
def test_bounds_hold_the_largest_logit(tokens):
    torch.manual_seed(0)
    q, k = 3 * torch.randn(2, tokens, 16) + torch.randn(16)
    largest = (q @ k.T).amax(1)
    upper, lower = largest_logits(q, k)
    assert (upper >= largest - 1e-4).all() and (lower <= largest + 1e-4).all()
    if tokens == 1:
        torch.testing.assert_close(upper, lower)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('gelu', [False, True])
def test_linear_layers_equal_pytorchs(dtype, gelu):
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 40).to(dtype)
    x = torch.randn(2, 7, 24).to(dtype)
    with torch.no_grad():
        exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
        exact = F.gelu(exact) if gelu else exact
        layer.__class__, layer.gelu = onednn.OneDnnLinear, gelu
        out = layer(x)
    assert out.dtype == dtype
    bound = 1e-6 if dtype == torch.float32 else 2**-8
    assert (out.double() - exact).norm() / exact.norm() < bound


def test_products_equal_pytorchs_without_onednn_too(monkeypatch):
    torch.manual_seed(0)
    x, weight = torch.randn(5, 6, 7), torch.randn(9, 7)
    torch.testing.assert_close(onednn.product(x, weight), x @ weight.T)
    monkeypatch.setattr(onednn, 'is_available', lambda: False)
    torch.testing.assert_close(onednn.product(x, weight), x @ weight.T)
