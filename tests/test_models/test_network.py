"""Half precision and compilation: what stays exact, what comes close."""

import copy
import pickle

import pytest
import torch
from mmengine.config import ConfigDict

from eomt_mm.errors import UserError
from eomt_mm.models import PlainViT, masked_attention
from eomt_mm.models.cpu import attention, decision, onednn
from eomt_mm.models.network import FastNetwork, Network, is_eomt, speed_up
from eomt_mm.models.windows import class_map
from eomt_mm.registry import MODELS
from tiny_models import tiny_backbone, tiny_network

ARCHS = ['vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3_qkvb']


needs_bf16 = pytest.mark.skipif(
    not onednn.is_available(torch.bfloat16), reason='needs a CPU with AVX-512'
)


@pytest.fixture(autouse=True)
def by_onednn(monkeypatch):
    """Whatever is faster here, the other kernels are what is tested."""
    monkeypatch.setattr(
        decision,
        'fastest',
        lambda what, shape, ways, *_: 'oneDNN' if 'oneDNN' in ways else 'autocast',
    )


@pytest.fixture(autouse=True)
def of_any_length(monkeypatch):
    """Few tokens are not left to PyTorch's attention, as in larger images."""
    monkeypatch.setattr(attention, 'LEAST_TOKENS', 0)


def fast(backbone, head, *options):
    return FastNetwork(Network(backbone, head), *options)


def network(arch=ARCHS[0], token_merging=None):
    # SwiGLU is of a width that can be halved.
    width = dict(mlp_ratio=5.5) if 'giant' in arch else {}
    return tiny_network(arch, 0.2, token_merging=token_merging, **width)


@pytest.mark.parametrize('change', ['subclass', 'weight_norm', 'hook'])
def test_changed_layers_keep_their_gelu(change):
    """They are no plain linear layers; a hook sees what the layer alone gives."""

    class Adapted(torch.nn.Linear):
        pass

    backbone, head = network()
    for block in backbone.blocks:
        if change == 'subclass':
            block.mlp.fc1.__class__ = Adapted
        elif change == 'hook':
            block.mlp.fc1.register_forward_hook(lambda module, args, out: 2 * out)
        else:
            torch.nn.utils.parametrizations.weight_norm(block.mlp.fc1)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected = head(*backbone(images))
        ours = fast(backbone, head)(images)
    for one, other in zip(ours, expected, strict=True):
        assert ((one - other).abs().max() / other.abs().max()).item() < 1e-5


@pytest.mark.parametrize('dtype', ['fp32', pytest.param('bf16', marks=needs_bf16)])
@pytest.mark.parametrize('arch', ARCHS)
def test_all_linear_layers_take_the_fast_way(monkeypatch, arch, dtype):
    """Also those of rotary models, whose biases are put together."""
    monkeypatch.setattr(attention, 'LEAST_TOKENS', 10**6)
    calls, linear = [], onednn._linear

    def spy(*args):
        calls.append(args)
        return linear(*args)

    monkeypatch.setattr(onednn, '_linear', spy)
    with torch.inference_mode():
        fast(*network(arch), dtype)(torch.randn(1, 3, 64, 64))
    # Four of each block, three of the mask head and its product.
    assert len(calls) == 4 * 4 + 3 + 1


def test_a_model_keeps_its_dtype():
    model = segmentor()
    speed_up(model, 'bf16')
    speed_up(model, 'bf16')
    with pytest.raises(UserError, match='made faster before, in bf16'):
        speed_up(model, 'fp32')
    with pytest.raises(UserError, match='can no longer be trained'):
        model.train()


def test_a_model_whose_dtype_is_refused_stays_as_it_was():
    model, image = segmentor(), torch.randn(3, 32, 50)
    expected = scores(model, image)
    with pytest.raises(UserError, match='fp16 on a CPU'):
        speed_up(model, 'fp16')
    assert torch.equal(scores(model.train().eval(), image), expected)
    speed_up(model, 'fp32')


@pytest.mark.parametrize(
    ('dtype', 'available'),
    [
        ('fp32', True),
        ('fp32', False),
        pytest.param('bf16', True, marks=needs_bf16),
        ('bf16', False),
    ],
)
def test_copies_have_weights_of_their_own(monkeypatch, dtype, available):
    monkeypatch.setattr(onednn, 'is_available', lambda dtype: available)
    model, image = segmentor(), torch.randn(3, 32, 50)
    speed_up(model, dtype)
    expected = scores(model, image)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(scores(copied, image), expected)
        for parameter in copied.parameters():
            torch.nn.init.zeros_(parameter)
        assert not torch.equal(scores(copied, image), expected)
        assert torch.equal(scores(model, image), expected)


def test_fp16_is_refused_on_a_cpu():
    with pytest.raises(UserError, match='fp16 on a CPU'):
        fast(*network(), 'fp16')


@pytest.mark.parametrize('arch', [*ARCHS, 'vit_giant_patch14_reg4_dinov2'])
@pytest.mark.parametrize('available', [True, False])
def test_fp32_is_the_same_but_for_rounding(monkeypatch, arch, available):
    monkeypatch.setattr(onednn, 'is_available', lambda dtype: available)
    backbone, head = network(arch)
    images = torch.randn(1, 3, 64, 64)
    run = fast(*copy.deepcopy((backbone, head)))
    with torch.inference_mode():
        expected = head(*backbone(images))
        ours = run(images)
    for one, other in zip(ours, expected, strict=True):
        assert ((one - other).abs().max() / other.abs().max()).item() < 1e-5
        assert available != torch.equal(one, other)


def test_the_state_dict_stays_as_it_is():
    modules = network()
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    fast(*modules)
    for module, states in zip(modules, before, strict=True):
        after = module.state_dict()
        assert list(after) == list(states)
        assert all(torch.equal(after[key], states[key]) for key in states)


def test_batches_that_are_merged_are_not_computed_in_parts(monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
    merging = dict(type='eomt_mm.ALGM', threshold=0.3, global_block=None, policy='min')
    backbone, head = network(token_merging=merging)
    images = torch.randn(3, 3, 64, 64)
    images[0] = 1  # could lose more tokens than the other two
    with torch.inference_mode():
        expected = head(*backbone(images))
        ours = fast(backbone, head)(images)
        alone = torch.cat([head(*backbone(image[None]))[1] for image in images])
    assert (ours[1] - expected[1]).norm() < 1e-4 * expected[1].norm()
    assert (alone - expected[1]).norm() > 1e-2 * expected[1].norm()


def test_no_images_have_no_results():
    backbone, head = network()
    with torch.inference_mode():
        classes, masks = fast(backbone, head)(torch.empty(0, 3, 64, 64))
    assert (len(classes), len(masks)) == (0, 0)


@pytest.mark.parametrize('threads', [1, 2, 5])
@pytest.mark.parametrize('merged', [False, True])
def test_batches_are_computed_in_parts_on_a_cpu(monkeypatch, threads, merged):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    merging = dict(type='eomt_mm.ALGM', keep=(0.5, 0.6), global_block=2)
    backbone, head = network(token_merging=merging if merged else None)
    images = torch.randn(5, 3, 64, 64)
    sizes = []
    predict = FastNetwork.predict

    def spy(self, images):
        sizes.append(len(images))
        return predict(self, images)

    monkeypatch.setattr(FastNetwork, 'predict', spy)
    with torch.inference_mode():
        expected = head(*backbone(images))
        ours = fast(backbone, head)(images)
    assert sizes == {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[threads]
    for one, other in zip(ours, expected, strict=True):
        assert ((one - other).abs().max() / other.abs().max()).item() < 1e-5


def test_baselines_on_the_same_bridge_keep_their_network():
    model = segmentor()
    assert is_eomt(model)
    model.backbone.__class__ = PlainViT
    assert not is_eomt(model)
    speed_up(model, 'bf16')
    assert model.fast is None
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize('arch', ARCHS)
def test_bf16_comes_close_and_classes_stay_fp32(arch):
    backbone, head = network(arch)
    images = torch.randn(2, 3, 64, 64)
    run = fast(*copy.deepcopy((backbone, head)), 'bf16')
    with torch.inference_mode():
        expected = head(*backbone(images))
        classes, masks = run(images)
    assert classes.dtype == torch.float32 and masks.dtype == torch.bfloat16
    for ours, theirs in zip((classes, masks), expected, strict=True):
        error = ((ours - theirs).norm() / theirs.norm()).item()
        assert 0 < error < 0.05


def test_only_matrix_products_lose_precision():
    backbone, head = network(ARCHS[1])
    fast(backbone, head, 'bf16')
    dtypes = {name: p.dtype for name, p in backbone.named_parameters()}
    half = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
    assert 'blocks.0.mlp.fc1.weight' in half and 'patch_embed.proj.weight' in half
    assert not [name for name in half if 'norm' in name or 'gamma' in name]
    assert not half & {'queries', 'cls_token', 'reg_token'}
    assert backbone.rope.get_embed().dtype == torch.float32
    assert head.class_head.weight.dtype == torch.float32
    assert head.mask_mlp[0].weight.dtype == torch.bfloat16


def test_rotary_codes_are_applied_in_fp32(monkeypatch):
    seen = []
    right = masked_attention.apply_rot_embed_cat

    def spy(x, rope, **kwargs):
        out = right(x, rope, **kwargs)
        seen.append((x, rope, out.to(x.dtype), kwargs))
        return out

    monkeypatch.setattr(masked_attention, 'apply_rot_embed_cat', spy)
    run = fast(*network(ARCHS[1]), 'bf16')
    with torch.inference_mode():
        run(torch.randn(1, 3, 64, 64))
    assert len(seen) == 2 * 4  # queries and keys of each block
    for x, rope, out, kwargs in seen:
        assert (x.dtype, rope.dtype) == (torch.bfloat16, torch.float32)
        assert torch.equal(out, right(x.float(), rope, **kwargs).to(x.dtype))


def test_class_maps_stay_fp32_where_everything_is_under_autocast():
    classes, masks = torch.randn(6, 5), torch.randn(6, 8, 8)
    expected = class_map(classes, masks, (16, 16))
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(class_map(classes, masks, (16, 16)), expected)


def test_unknown_dtypes_are_refused():
    with pytest.raises(UserError, match="'half'.*fp32, bf16, fp16"):
        fast(*network(), 'half')


def segmentor():
    pytest.importorskip('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(
        ConfigDict(
            type='eomt_mm.EoMTSegmentor',
            data_preprocessor=dict(
                type='eomt_mm.EoMTSegDataPreProcessor', size=(32, 32)
            ),
            backbone=tiny_backbone(
                num_queries=5, timm_args=dict(embed_dim=64, depth=3, num_heads=2)
            ),
            decode_head=dict(
                type='eomt_mm.SemanticHead', embed_dims=64, num_classes=4, patch_size=8
            ),
            test_cfg=dict(max_windows=16),
        )
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def scores(model, image):
    model.test_cfg['keep_logits'] = True
    with torch.inference_mode():
        return model.predict([image])[0].seg_logits.data


def test_a_segmentor_in_bf16():
    model, image = segmentor(), torch.randn(3, 32, 110)
    expected = scores(model, image)
    speed_up(model, 'bf16')
    ours = scores(model, image)
    assert ours.dtype == torch.float32
    assert 0 < ((ours - expected).norm() / expected.norm()).item() < 0.05


def test_compiled_windows_come_in_few_numbers(monkeypatch):
    """Each number of windows is compiled anew."""
    model, image = segmentor(), torch.randn(3, 32, 200)  # seven windows
    expected = scores(model, image)
    batches = []
    plain = model.network

    class Compiled:
        compiled = True

        def __call__(self, images):
            batches.append(len(images))
            return plain(images)

    monkeypatch.setattr(model, 'fast', Compiled())
    torch.testing.assert_close(scores(model, image), expected)
    assert batches == [4, 2, 1]


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
def test_compiled_results_are_the_same(dtype):
    model, image = segmentor(), torch.randn(3, 32, 50)
    speed_up(model, dtype)
    expected = scores(model, image)
    speed_up(model, dtype, compiled=True)
    ours = scores(model, image)
    assert ((ours - expected).norm() / expected.norm()).item() < (
        1e-5 if dtype == 'fp32' else 0.02
    )


def test_stock_models_run_under_autocast():
    seen = []

    class Stock(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Linear(4, 4)

        def forward(self, x):
            seen.append(self.backbone(x).dtype)

    model = Stock()
    model(torch.ones(1, 4))
    speed_up(model, 'bf16')
    model(torch.ones(1, 4))
    assert seen == [torch.float32, torch.bfloat16]
