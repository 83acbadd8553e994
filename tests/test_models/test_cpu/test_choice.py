"""The machine decides: what is slower is not used, and the log says so."""

import copy
import time

import pytest
import torch

from eomt_mm.models import MaskHead, QueryViT
from eomt_mm.models.cpu import attention, choice, decision, layers, onednn
from eomt_mm.models.network import FastNetwork, Network, autocast

CPU = torch.device('cpu')
needs_onednn = pytest.mark.skipif(
    not onednn.is_available(torch.float32), reason='needs oneDNN'
)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(choice, '_chosen', {})


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(choice, 'print_log', lambda line, logger: lines.append(line))
    return lines


def modules(dims=32):
    torch.manual_seed(0)
    backbone = QueryViT(
        'vit_small_patch16_224',
        img_size=64,
        num_queries=5,
        num_blocks=2,
        pretrained=False,
        timm_args=dict(embed_dim=dims, depth=3, num_heads=2),
    )
    return backbone.eval(), MaskHead(dims, 7).eval()


def work(seconds):
    """Not sleep, which costs no time of the processor."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def waiting(seconds, calls):
    def run():
        calls.append(seconds)
        work(seconds)

    return run


def test_the_faster_way_is_kept_for_the_process(log):
    calls = []
    ways = {'first': waiting(0.02, calls), 'second': waiting(0.005, calls)}
    assert choice.fastest('sleep', (1,), ways) == 'second'
    tried = len(calls)
    assert choice.fastest('sleep', (1,), ways) == 'second'
    assert len(calls) == tried
    assert choice.fastest('sleep', (2,), ways) == 'second'
    assert len(calls) > tried
    assert len(log) == 2 and log[0].startswith('sleep: second; first ')
    gain = float(log[0].rpartition('(')[2].removesuffix('x)'))
    assert 2 < gain <= 4.2


def test_the_first_way_stays_unless_another_gains(log):
    ways = {'first': waiting(0.020, []), 'second': waiting(0.015, [])}
    assert choice.fastest('sleep', (1,), ways, least_gain=0.5) == 'first'
    assert choice.fastest('sleep', (2,), ways, least_gain=0.05) == 'second'
    ways = {'first': waiting(0.005, []), 'second': waiting(0.02, [])}
    assert choice.fastest('sleep', (3,), ways) == 'first'


@needs_onednn
def test_where_onednn_is_slower_pytorch_computes(monkeypatch, log):
    """The network is PyTorch's own then, bit for bit."""
    linear = onednn._linear

    def slow(*args):
        work(0.01)
        return linear(*args)

    monkeypatch.setattr(onednn, '_linear', slow)
    monkeypatch.setattr(attention, 'LEAST_TOKENS', 0)
    backbone, head = modules()
    images = torch.randn(1, 3, 64, 64)
    run = FastNetwork(Network(*copy.deepcopy((backbone, head))))
    with torch.inference_mode():
        expected = Network(backbone, head)(images)
        assert all(map(torch.equal, run(images), expected))
    assert len(log) == 3 and all(': PyTorch; ' in line for line in log)


@needs_onednn
def test_each_kernel_is_chosen_by_itself(monkeypatch):
    def pick(what, shape, ways, *_):
        return 'oneDNN' if what.startswith(chosen) else next(iter(ways))

    monkeypatch.setattr(decision, 'fastest', pick)
    for chosen in ('linear layers', 'attention', 'mask product'):
        network = Network(*modules())
        FastNetwork(network)
        block, head = network.backbone.blocks[0], network.head
        assert isinstance(block.mlp.fc1, layers.OneDnnLinear) == (
            chosen == 'linear layers'
        )
        assert (block.attn.attend is attention.attend) == (chosen == 'attention')
        assert isinstance(head.mask_product, layers.OneDnnMaskProduct) == (
            chosen == 'mask product'
        )


@pytest.mark.parametrize('way', ['autocast', 'throughout'])
def test_bf16_with_either_residual(monkeypatch, way):
    monkeypatch.setattr(
        decision,
        'fastest',
        lambda what, shape, ways, *_: way if way in ways else next(iter(ways)),
    )
    backbone, head = modules()
    images = torch.randn(2, 3, 64, 64)
    run = FastNetwork(Network(*copy.deepcopy((backbone, head))), 'bf16')
    half = run.backbone.norm.weight.dtype == torch.bfloat16
    assert half == run.throughout == (way == 'throughout')
    assert run.head.class_head.weight.dtype == torch.float32
    with torch.inference_mode():
        exact = Network(backbone, head)(images)
        with autocast(CPU, 'bf16'):
            plain = Network(backbone, head)(images)
        found = run(images)
    for one, other, by_pytorch in zip(found, exact, plain, strict=True):
        error = (one.float() - other).abs().max() / other.abs().max()
        assert 0 < error < 0.05
        if way == 'autocast':
            theirs = (by_pytorch.float() - other).abs().max() / other.abs().max()
            assert error <= 2 * theirs


def test_choosing_takes_well_below_a_second(log):
    """The smallest model of the paper is timed; any choice is right."""
    backbone = QueryViT(
        'vit_small_patch16_224',
        img_size=640,
        num_queries=200,
        num_blocks=3,
        pretrained=False,
        timm_args=dict(depth=3),
    )
    network = Network(backbone.eval(), MaskHead(384, 7).eval())
    state = torch.random.get_rng_state()
    start = time.process_time()
    FastNetwork(network, 'bf16')
    taken = time.process_time() - start
    assert torch.equal(torch.random.get_rng_state(), state)
    assert log and taken < 2, (taken, log)  # of a machine that may be busy
