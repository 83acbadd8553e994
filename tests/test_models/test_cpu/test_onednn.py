"""Products and attention by oneDNN against PyTorch's own, and against float64."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from eomt_mm.models.cpu import attention, layers, onednn
from eomt_mm.models.cpu.attention import attend as attention_in_pieces
from eomt_mm.models.cpu.attention import largest_logits

needs_bf16 = pytest.mark.skipif(
    not onednn.is_available(torch.bfloat16), reason='needs a CPU with AVX-512'
)


def qkv(dtype=torch.float32, tokens=37):
    torch.manual_seed(0)
    # As the layers make them: not contiguous.
    return torch.randn(2, tokens, 3, 3, 8).to(dtype).permute(2, 0, 3, 1, 4)


@pytest.fixture(autouse=True)
def of_any_length(monkeypatch):
    """Few tokens are not left to PyTorch, with which all is compared."""
    monkeypatch.setattr(attention, 'LEAST_TOKENS', 0)


@pytest.fixture
def fallbacks(monkeypatch):
    """The queries that were left to the softmax, of each call."""
    calls, attend = [], attention.attend_by_softmax

    def spy(q, *args):
        calls.append(q)
        return attend(q, *args)

    monkeypatch.setattr(attention, 'attend_by_softmax', spy)
    return calls


@pytest.mark.parametrize('at_once', [1, 100, 500])
def test_attention_in_pieces_equals_the_fused_kernel(monkeypatch, at_once):
    """Whatever number of rows is computed at once."""
    at_once = dict.fromkeys(attention.WEIGHTS_AT_ONCE, at_once)
    monkeypatch.setattr(attention, 'WEIGHTS_AT_ONCE', at_once)
    monkeypatch.setattr(attention, 'LEAST_ROWS', 1)
    q, k, v = qkv()
    out = attention_in_pieces(q, k, v)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    # What the layer behind it wants: channels of all heads side by side.
    assert out.transpose(1, 2).is_contiguous()


@needs_bf16
def test_attention_in_bf16_is_as_close_as_bf16_is():
    q, k, v = qkv(torch.bfloat16)
    exact = F.scaled_dot_product_attention(*(t.double() for t in (q, k, v)))
    out = attention_in_pieces(q, k, v)
    assert (out.double() - exact).norm() / exact.norm() < 2 * 2**-8


@needs_bf16
@pytest.mark.parametrize('dims', [64, 32])  # sqrt(32) is no power of two
@pytest.mark.parametrize('kind', ['common', 'huge', 'outliers', 'peaks', 'sharp'])
def test_attention_in_bf16_is_as_exact_as_pytorchs(fallbacks, kind, dims):
    """Also where rounded products of q and k would be magnified by the softmax."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 500, dims) for _ in range(3))
    if kind == 'common':  # a channel that all keys share, as a bias or a sink does
        q[..., 0] += 8
        k[..., 0] += 400
    elif kind == 'huge':  # logits that bf16 could not hold to the integer
        q[..., 0] += 100
        k[..., 0] += 10000
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
    assert bool(fallbacks) == (kind in ('huge', 'sharp') or dims == 32)


@pytest.mark.parametrize(
    ('tokens', 'dtype', 'ours'),
    [
        (299, torch.float32, False),
        (300, torch.float32, True),
        (300, torch.float64, False),
    ],
)
def test_what_is_left_to_pytorch(monkeypatch, tokens, dtype, ours):
    monkeypatch.undo()
    calls, pieces = [], attention._attention
    monkeypatch.setattr(
        attention,
        '_attention',
        lambda *args: calls.append(args) or pieces(*args),
    )
    q, k, v = torch.randn(3, 1, 2, tokens, 16, dtype=dtype)
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(
        attention_in_pieces(q, k, v), expected, rtol=1e-5, atol=1e-6
    )
    assert bool(calls) == ours


@needs_bf16
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


@needs_bf16
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


@pytest.mark.parametrize(
    'dtype', [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)]
)
@pytest.mark.parametrize('gelu', [False, True])
def test_linear_layers_equal_pytorchs(dtype, gelu):
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 40).to(dtype)
    x = torch.randn(2, 7, 24).to(dtype)
    with torch.no_grad():
        exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
        exact = F.gelu(exact) if gelu else exact
        layer.__class__, layer.gelu = layers.OneDnnLinear, gelu
        out = layer(x)
    assert out.dtype == dtype
    bound = 1e-6 if dtype == torch.float32 else 2**-8
    assert (out.double() - exact).norm() / exact.norm() < bound


def test_products_equal_pytorchs_without_onednn_too(monkeypatch):
    torch.manual_seed(0)
    x, weight = torch.randn(5, 6, 7), torch.randn(9, 7)
    torch.testing.assert_close(onednn.product(x, weight), x @ weight.T)
    monkeypatch.setattr(onednn, 'is_available', lambda dtype: False)
    torch.testing.assert_close(onednn.product(x, weight), x @ weight.T)


@pytest.mark.parametrize('images', [0, 1, 3])
def test_mask_products_equal_pytorchs(images):
    torch.manual_seed(0)
    embeddings, features = torch.randn(images, 5, 8), torch.randn(images, 8, 6, 7)
    masks = onednn.mask_product(embeddings, features)
    torch.testing.assert_close(
        masks, torch.einsum('bkc,bchw->bkhw', embeddings, features)
    )


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), 'mallinfo2'), reason='needs glibc 2.33 or later'
)
def test_freed_memory_is_kept():
    """A large block comes from the heap then, not from the system."""
    code = (
        'import ctypes, sys, torch\n'
        'from eomt_mm.models.cpu import onednn\n'
        'class Info(ctypes.Structure):\n'
        '    _fields_ = [(c, ctypes.c_size_t) for c in "abcdefghij"]\n'
        'ask = ctypes.CDLL(None).mallinfo2\n'
        'ask.restype = Info\n'
        'if "keep" in sys.argv:\n'
        '    onednn.keep_freed_memory()\n'
        'before = ask().d  # blocks from the system\n'
        'block = torch.empty(30 * 2**20, dtype=torch.uint8)\n'
        'print(ask().d - before)\n'
    )

    def from_the_system(*argv):
        command = [sys.executable, '-c', code, *argv]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    assert (from_the_system(), from_the_system('keep')) == (1, 0)


def test_bf16_without_avx512_is_left_to_pytorch():
    """oneDNN refuses it there: seen by a process that may use AVX2 alone."""
    code = (
        'import torch\n'
        'from eomt_mm.models import MaskHead, QueryViT\n'
        'from eomt_mm.models.cpu import onednn\n'
        'from eomt_mm.models.network import FastNetwork, Network\n'
        'timm_args = dict(embed_dim=64, depth=2, num_heads=1)\n'
        'arch = "vit_small_patch14_reg4_dinov2"\n'
        'backbone = QueryViT(arch, 64, num_queries=3, num_blocks=1,\n'
        '                    pretrained=False, timm_args=timm_args).eval()\n'
        'run = FastNetwork(Network(backbone, MaskHead(64, 5).eval()), "bf16")\n'
        'with torch.inference_mode():\n'
        '    run(torch.randn(2, 3, 64, 64))\n'
        'print(onednn.is_available(torch.bfloat16))\n'
    )
    found = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'ONEDNN_MAX_CPU_ISA': 'AVX2'},
        capture_output=True,
        text=True,
    )
    assert found.stdout.split()[-1] == 'False', found.stderr
