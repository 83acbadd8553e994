"""A model in FSDP's wrappers, in one process: the same numbers, names and groups."""

import copy
import io

import pytest
import torch
from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from mmengine.optim import build_optim_wrapper
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from eomt_mm.engine.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    classes_to_wrap,
    renamed,
)
from eomt_mm.engine.wrapped import (
    forward_outside,
    is_sharded,
    own_state,
    plain_name,
    unwrapped,
    whole_state,
)
from eomt_mm.errors import UserError
from eomt_mm.models.checkpoint_check import compare_states
from eomt_mm.models.query_vit import QueryViT


@pytest.fixture
def alone():
    """A group of one process."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class Model(torch.nn.Module):
    def __init__(self, arch='vit_tiny_patch16_224'):
        super().__init__()
        options = dict(embed_dim=16, depth=3, num_heads=2)
        self.backbone = QueryViT(arch, 32, 8, 4, 2, pretrained=False, timm_args=options)
        self.head = torch.nn.Linear(16, 3)

    def forward(self, images):
        queries, patches = self.backbone(images)
        return self.head(queries).square().mean() + patches.square().mean()


def wrap(model):
    policy = ModuleWrapPolicy(classes_to_wrap(model, None))
    return FSDP(model, device_id='cpu', use_orig_params=True, auto_wrap_policy=policy)


@pytest.fixture
def models(alone):
    torch.manual_seed(0)
    model = Model()
    return model, wrap(copy.deepcopy(model))


def test_the_blocks_are_wrapped_and_nothing_else(models):
    plain, wrapped = models
    units = {
        plain_name(name)
        for name, part in wrapped.module.named_modules()
        if isinstance(part, FSDP)
    }
    assert units == {f'backbone.blocks.{i}' for i in range(3)}
    assert unwrapped(wrapped.module.backbone.blocks[0]) is (
        wrapped.module.backbone.blocks[0].module
    )
    assert is_sharded(wrapped) and not is_sharded(plain)


def test_same_loss_and_gradients(models):
    images = torch.randn(2, 3, 32, 32)
    found = []
    for model in models:
        loss = model(images)
        loss.backward()
        gradients = {
            plain_name(name): value.grad
            for name, value in unwrapped(model).named_parameters()
        }
        found.append((loss, gradients))
    (loss, gradients), (same, others) = found
    torch.testing.assert_close(loss, same)
    torch.testing.assert_close(gradients, others)


def test_names_and_whole_weights(models):
    plain, wrapped = models
    state = plain.state_dict()
    torch.testing.assert_close(dict(whole_state(wrapped)), dict(state))
    assert own_state(wrapped).keys() == dict(plain.named_parameters()).keys()
    compare_states(whole_state(wrapped), state)
    with forward_outside(wrapped), torch.no_grad():
        images = torch.randn(1, 3, 32, 32)
        torch.testing.assert_close(
            unwrapped(wrapped).backbone(images), plain.backbone(images)
        )


def test_same_groups_with_layer_decay(models):
    config = dict(
        constructor='eomt_mm.LayerDecayConstructor',
        optimizer=dict(type='AdamW', lr=1.0),
        paramwise_cfg=dict(decay_rate=0.5),
    )
    groups = []
    for model in models:
        names = {id(p): plain_name(n) for n, p in model.named_parameters()}
        built = build_optim_wrapper(model, copy.deepcopy(config))
        groups.append(
            [
                (
                    group['lr'],
                    group['is_backbone'],
                    [names[id(p)] for p in group['params']],
                )
                for group in built.optimizer.param_groups
            ]
        )
    assert groups[0] == groups[1] and len(groups[0]) > 2


@pytest.fixture
def strategy(models):
    """A strategy with its model and a step taken, without a Runner."""
    _, wrapped = models
    made = FSDPStrategy.__new__(FSDPStrategy)
    made.model = wrapped
    made.optim_wrapper = made.build_optim_wrapper(
        dict(
            constructor='eomt_mm.LayerDecayConstructor',
            optimizer=dict(type='AdamW', lr=0.1),
            clip_grad=dict(max_norm=0.01),
        ),
        wrapped,
    )
    made.optim_wrapper.update_params(wrapped(torch.randn(2, 3, 32, 32)))
    return made


def test_state_is_that_of_a_run_without_a_strategy(strategy, models):
    plain, _ = models
    state = strategy.optim_state_dict()
    own = build_optim_wrapper(
        plain,
        dict(
            constructor='eomt_mm.LayerDecayConstructor',
            optimizer=dict(type='AdamW', lr=0.1),
        ),
    )
    own.load_state_dict(copy.deepcopy(state))
    parameters = [p for g in own.optimizer.param_groups for p in g['params']]
    shapes = [own.optimizer.state[p]['exp_avg'].shape for p in parameters]
    assert shapes == [p.shape for p in parameters]
    strategy.load_optim_state_dict(copy.deepcopy(own.state_dict()))
    torch.testing.assert_close(strategy.optim_state_dict(), state)


def test_the_whole_norm_is_clipped(strategy, monkeypatch):
    asked = []
    monkeypatch.setattr(
        FSDP,
        'clip_grad_norm_',
        lambda self, *norm: asked.append(norm) or torch.ones(()),
    )
    strategy.optim_wrapper.update_params(strategy.model(torch.randn(2, 3, 32, 32)))
    assert asked == [(0.01, 2.0)]


def test_saved_weights_are_plain_tensors(strategy):
    torch.save(strategy.model_state_dict(), file := io.BytesIO())
    file.seek(0)
    assert torch.load(file, weights_only=True)


def test_unknown_class():
    model = Model()
    assert [kind.__name__ for kind in classes_to_wrap(model, ['Linear'])] == ['Linear']
    with pytest.raises(UserError, match='no module of class Blok; it has Block, '):
        classes_to_wrap(model, ['Block', 'Blok'])
    with pytest.raises(UserError, match='Linear has no backbone.blocks'):
        classes_to_wrap(torch.nn.Linear(1, 1), None)


def test_weights_of_another_model_are_refused(strategy):
    weights = {key: value[:1] for key, value in strategy.model_state_dict().items()}
    with pytest.raises(UserError, match='does not fit the config'):
        strategy.load_model_state_dict(weights)


def test_renamed():
    state = dict(param_groups=[dict(params=[0], lr=1)], state={0: 'moments'})
    new = renamed(state, 'ab'.__getitem__)
    assert new == dict(param_groups=[dict(params=['a'], lr=1)], state=dict(a='moments'))


def test_deepspeed_clips_as_the_config_says(monkeypatch):
    made = DeepSpeedStrategy.__new__(DeepSpeedStrategy)
    made.config, seen = {}, []
    base = MMEngineFSDPStrategy.__mro__[-2]  # BaseStrategy
    monkeypatch.setattr(
        base, 'build_optim_wrapper', lambda self, options, model: seen.append(options)
    )
    made.build_optim_wrapper(
        dict(
            type='OptimWrapper', optimizer=1, clip_grad=dict(max_norm=0.01, norm_type=2)
        )
    )
    assert made.config == dict(gradient_clipping=0.01, gradient_accumulation_steps=1)
    assert seen == [dict(type='DeepSpeedOptimWrapper', optimizer=1)]
    with pytest.raises(UserError, match='2-norm alone'):
        made.build_optim_wrapper(dict(clip_grad=dict(type='value', clip_value=1)))
