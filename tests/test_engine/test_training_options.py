"""Checkpointing, freezing, compilation: the same training, or less of it."""

import copy

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from eomt_mm.engine import compile_hook
from eomt_mm.errors import UserError
from eomt_mm.models import Criterion, MaskHead, QueryViT
from eomt_mm.models.criterion import Target

DEPTH, NUM_BLOCKS = 4, 2
OPTIONS = {
    'plain': {},
    'checkpointing': dict(checkpointing=True),
    'two blocks frozen': dict(frozen=dict(blocks=2)),
    'all frozen': dict(frozen=dict(blocks='all')),
    'both': dict(checkpointing=True, frozen=dict(blocks=3, embeddings=False)),
}
OPTIM = dict(
    constructor='eomt_mm.LayerDecayConstructor',
    optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05),
)


def small_backbone(arch='vit_small_patch16_224', **options):
    torch.manual_seed(0)
    return QueryViT(
        arch,
        img_size=32,
        patch_size=8,
        num_queries=3,
        num_blocks=NUM_BLOCKS,
        pretrained=False,
        timm_args=dict(embed_dim=16, depth=DEPTH, num_heads=2),
        **options,
    )


class SmallEoMT(BaseModel):
    """A real network on images that are numbers, with targets that are fixed."""

    def __init__(self, arch='vit_small_patch16_224', **options):
        super().__init__()
        self.backbone = small_backbone(arch, **options)
        self.decode_head = MaskHead(16, 3, patch_size=8)
        self.criterion = Criterion(num_points=64)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        images = torch.stack(inputs).view(-1, 1, 1, 1)
        images = images * torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
        if mode != 'loss':
            return [self.decode_head(*self.backbone(images))[0].sum()]
        masks = torch.zeros(2, 32, 32, dtype=torch.bool)
        masks[0, :16], masks[1, 16:] = True, True
        targets = [Target(torch.tensor([0, 2]), masks)] * len(images)
        predictions = self.backbone.forward_masked(images, self.decode_head)
        return self.criterion(predictions, targets)


MODELS.register_module(name='EngineSmallEoMT', module=SmallEoMT)


def gradients(model, probs):
    """Gradients of one step by name; None where there are none."""
    model.backbone.mask_probs = list(probs)
    torch.manual_seed(1)
    loss = sum(model([torch.tensor(0.3), torch.tensor(-0.5)], mode='loss').values())
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize('probs', [(1, 1), (0.5, 1), (0, 0)])
@pytest.mark.parametrize(
    'arch', ['vit_small_patch16_224', 'vit_small_patch16_dinov3_qkvb']
)
def test_checkpointing_has_the_same_gradients(monkeypatch, arch, probs):
    plain, frugal = SmallEoMT(arch), SmallEoMT(arch, checkpointing=True)
    expected, found = gradients(plain, probs), gradients(frugal, probs)
    assert len(expected) > 20
    for name, gradient in expected.items():
        error = (found[name] - gradient).abs().max()
        assert error <= 1e-6 * gradient.abs().max().clamp(min=1e-6), name


def test_checkpointing_keeps_less(monkeypatch):
    """Bytes of what autograd saves on the way forward."""

    def saved(model):
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            x = model.backbone.embed(torch.randn(1, 3, 32, 32))
            for block in model.backbone.blocks:
                x = model.backbone.run_block(block, x, None)
        return sum(sizes.values())

    assert saved(SmallEoMT(checkpointing=True)) < saved(SmallEoMT()) / 3


@pytest.mark.parametrize(
    ('frozen', 'parts'),
    [
        (dict(blocks=2), ['blocks.0.', 'blocks.1.', 'patch_embed.', 'pos_', 'cls_']),
        (dict(blocks=1, embeddings=False), ['blocks.0.']),
        (dict(blocks=0), ['patch_embed.', 'pos_', 'cls_']),
        (
            dict(blocks=2, embeddings=False, norm=True),
            ['blocks.0', 'blocks.1', 'norm.'],
        ),
        (
            dict(blocks='all'),
            ['blocks.', 'norm.', 'patch_embed.', 'pos_', 'cls_'],
        ),
        (dict(norm=False), ['blocks.', 'patch_embed.', 'pos_', 'cls_']),
    ],
)
def test_what_is_frozen_stays(frozen, parts):
    model = SmallEoMT(frozen=frozen).train()
    wrapper = build_optim_wrapper(model, copy.deepcopy(OPTIM))
    names = dict(model.named_parameters())
    still = {n for n in names if n.startswith(tuple(f'backbone.{p}' for p in parts))}
    before = {name: parameter.clone() for name, parameter in names.items()}
    for _ in range(3):
        found = gradients(model, (1, 0.5))
        wrapper.optimizer.step()
        assert {name for name, gradient in found.items() if gradient is None} == still
        wrapper.zero_grad()
    with_state = {id(parameter) for parameter in wrapper.optimizer.state}
    for name, parameter in names.items():
        assert torch.equal(parameter, before[name]) == (name in still), name
        assert (id(parameter) in with_state) == (name not in still), name
    for name, module in model.backbone.named_modules():
        if name not in ('', 'blocks') and f'{name}.'.startswith(tuple(parts)):
            assert not module.training, name
    assert model.decode_head.training
    model.eval().train()
    assert not model.backbone.blocks[0].training == (frozen.get('blocks') != 0)


@pytest.mark.parametrize('blocks', [5, -1, 'some', 1.5])
def test_more_blocks_than_there_are(blocks):
    with pytest.raises(UserError, match=rf"frozen.blocks is '?{blocks}'?, .* 4 blocks"):
        small_backbone(frozen=dict(blocks=blocks))


@pytest.fixture
def check_resume(toy_config, run_and_resume, assert_same_run):
    """Trains and resumes with the options of a model; returns the whole run."""

    def check(options, hooks=()):
        whole, resumed = run_and_resume(
            'iter_5',
            model=dict(type='EngineSmallEoMT', **options),
            custom_hooks=[*toy_config().custom_hooks, *hooks],
        )
        assert_same_run(whole, resumed, ('loss', 'mask_prob_0', 'mask_prob_1'))
        probs = whole.message_hub.get_scalar('train/mask_prob_0').data[0]
        assert max(probs) > min(probs)  # it was annealed
        return whole

    return check


@pytest.mark.parametrize('name', OPTIONS)
def test_resume_with_each_option(check_resume, name):
    check_resume(OPTIONS[name])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['plain', 'checkpointing'])
def test_compiled_blocks_train_and_resume(toy_config, toy_run, check_resume, name):
    """Traced and differentiated as a whole, and run without the C++ compiler."""
    hook = dict(type='eomt_mm.CompileHook', backend='aot_eager')
    compiled = check_resume(OPTIONS[name], [hook])
    model = dict(type='EngineSmallEoMT', **OPTIONS[name])
    plain = toy_run(toy_config(work_dir='plain', model=model))
    assert set(plain.model.state_dict()) == set(compiled.model.state_dict())
    losses = [
        run.message_hub.get_scalar('train/loss').data[0] for run in (plain, compiled)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-3)


@pytest.mark.campaign
@pytest.mark.parametrize('name', ['plain', 'checkpointing'])
def test_compiled_blocks_have_the_same_gradients(name):
    plain, compiled = SmallEoMT(), SmallEoMT(**OPTIONS[name])
    runner = type('Runner', (), dict(model=compiled))()
    compile_hook.CompileHook().before_train(runner)
    for probs in ((1, 1), (0, 0)):
        for model in (plain, compiled):
            model.zero_grad()
        expected, found = gradients(plain, probs), gradients(compiled, probs)
        for key, gradient in expected.items():
            error = (found[key] - gradient).abs().max()
            assert error <= 1e-4 * gradient.abs().max().clamp(min=1e-4), key


def test_compilation_without_blocks_or_compiler(monkeypatch, toy_model):
    hook = compile_hook.CompileHook()
    runner = type('Runner', (), {})()
    runner.model = toy_model()
    monkeypatch.setattr(compile_hook.shutil, 'which', lambda name: None)
    with pytest.raises(UserError, match='needs a C.. compiler'):
        hook.before_train(runner)
    runner.model = torch.nn.Module()
    runner.model.backbone = torch.nn.Linear(1, 1)
    with pytest.raises(UserError, match='backbone Linear has none'):
        hook.before_train(runner)
