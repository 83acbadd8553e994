"""Products in 8 bits: their arithmetic, where they stand, where they are refused."""

import copy

import pytest
import torch

from eomt_mm.errors import UserError
from eomt_mm.models import fp8
from eomt_mm.models.network import FastNetwork, Network
from tiny_models import tiny_network

ARCHS = {
    'vit_small_patch14_reg4_dinov2': 4,
    'vit_giant_patch14_reg4_dinov2': 4,  # SwiGLU
    'vit_small_patch16_dinov3_qkvb': 4,
    'eva02_base_patch14_448': 7,  # queries, keys, values apart, and three of the MLP
}


@pytest.fixture
def anywhere(monkeypatch):
    """The arithmetic of a card, by its numbers in fp32."""
    monkeypatch.setattr(fp8, 'check_device', lambda device: None)


def network(arch):
    if 'patch14' in arch and 'reg4' not in arch or 'giant' in arch:
        # Else of a width that cards do not take.
        return Network(*tiny_network(arch, 0.1, mlp_ratio=3.0))
    return Network(*tiny_network(arch, 0.1))


def test_each_row_fills_the_range():
    x = torch.randn(5, 48) * 10.0 ** torch.arange(-6.0, 4.0, 2)[:, None]
    x[3] = 0
    values, scales = fp8.quantize(x)
    assert values.dtype == torch.float8_e4m3fn and scales.shape == (5, 1)
    largest = values.float().abs().amax(1).tolist()
    assert largest == [448, 448, 448, 0, 448]
    # Three bits behind the leading one; the smallest numbers have fewer.
    wrong = (values.float() * scales - x).abs()
    assert (wrong <= x.abs() / 16 + scales * 2**-10).all()


@pytest.mark.parametrize('bias', [False, True])
def test_a_layer_is_the_product_of_its_rounded_numbers(bias):
    layer = torch.nn.Linear(32, 48, bias)
    x = torch.randn(2, 3, 32)
    expected = torch.zeros(2, 3, 48, dtype=torch.float64)

    def rounded(row):
        scale = row.abs().max() / 448
        return (row / scale).to(torch.float8_e4m3fn).double() * scale.double()

    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3)):
        for out in range(48):
            weights = rounded(layer.weight.data[out])
            expected[i, j, out] = rounded(x[i, j]) @ weights
            if bias:
                expected[i, j, out] += layer.bias.data[out].bfloat16().double()
    block = torch.nn.Sequential(layer)
    fp8.use_fp8([block])
    found = block(x)
    assert found.dtype == torch.bfloat16
    error = (found.double() - expected).abs() / expected.abs().max()
    assert error.max() < 2**-8  # the rounding of the result


@pytest.mark.usefixtures('anywhere')
@pytest.mark.parametrize('arch', ARCHS)
def test_a_network(arch, monkeypatch):
    """All linear layers of the blocks take part, and no other; weights can be saved."""
    plain = network(arch)
    images = torch.randn(1, 3, *plain.backbone.img_size)
    fast = FastNetwork(copy.deepcopy(plain), 'fp8')
    calls, linear = [], fp8.linear
    monkeypatch.setattr(fp8, 'linear', lambda *args: calls.append(1) or linear(*args))
    with torch.inference_mode():
        expected, found = plain(images), fast(images)
    assert len(calls) == 4 * ARCHS[arch]
    for one, other in zip(found, expected, strict=True):
        error = (one.float() - other).norm() / other.norm()
        assert 1e-3 < error < 0.1
    names = plain.backbone.state_dict().keys()
    assert fast.backbone.state_dict().keys() == names


def test_layers_of_odd_sizes_stay():
    block = torch.nn.Sequential(torch.nn.Linear(20, 32), torch.nn.Linear(32, 48))
    fp8.use_fp8([block])
    assert [isinstance(layer, fp8.Fp8Linear) for layer in block] == [False, True]


def test_it_is_refused_where_there_is_no_such_product(monkeypatch):
    with pytest.raises(UserError, match='fp8 needs .* this is a CPU: take bf16'):
        FastNetwork(network('vit_small_patch14_reg4_dinov2'), 'fp8')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'A100')
    with pytest.raises(UserError, match='A100, compute capability 8.0: take bf16'):
        fp8.check_device(torch.device('cuda'))


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or not fp8.has_products(torch.device('cuda')),
    reason='needs a CUDA device with products of E4M3',
)
def test_the_card_computes_the_same(monkeypatch):
    layer = torch.nn.Linear(256, 512).cuda()
    x = torch.randn(4, 100, 256, device='cuda')
    block = torch.nn.Sequential(layer)
    fp8.use_fp8([block])
    found = block(x)
    monkeypatch.setattr(fp8, 'has_products', lambda device: False)
    expected = block(x)
    assert (found - expected).abs().max() < 2**-6 * expected.abs().max()
