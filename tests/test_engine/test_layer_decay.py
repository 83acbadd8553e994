import pytest
import timm
import torch
from mmengine.optim import build_optim_wrapper

from eomt_mm.engine import layer_decay_scale
from eomt_mm.errors import UserError
from eomt_mm.models.plain_vit import PlainViT


def build(model, **paramwise_cfg):
    return build_optim_wrapper(
        model,
        {
            'constructor': 'eomt_mm.LayerDecayConstructor',
            'optimizer': {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05},
            'paramwise_cfg': paramwise_cfg,
        },
    )


def settings_of_parameters(model, wrapper):
    groups = wrapper.optimizer.param_groups
    group_of = {id(p): group for group in groups for p in group['params']}
    assert sum(len(group['params']) for group in groups) == len(group_of)
    return {name: group_of[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ('depth', 'first'), [(12, 0.0859), (24, 0.00590), (40, 0.000166)]
)
def test_published_factors(depth, first):
    embeddings = ('patch_embed.proj.weight', 'pos_embed', 'cls_token', 'reg_token')
    for name in (*embeddings, 'norm_pre.weight', 'blocks.0.attn.qkv.bias'):
        assert layer_decay_scale(name, depth, 0.8) == pytest.approx(first, rel=5e-3)
    last = depth - 1
    assert layer_decay_scale(f'blocks.{last}.mlp.fc1.weight', depth, 0.8) == 1
    assert layer_decay_scale(f'blocks.{last - 4}.ls1.gamma', depth, 0.8) == (
        pytest.approx(0.4096)
    )
    for name in ('norm.weight', 'norm.bias', 'queries'):
        assert layer_decay_scale(name, depth, 0.8) == 1


@pytest.mark.parametrize(
    'arch',
    [
        'vit_small_patch14_reg4_dinov2',
        'vit_large_patch14_reg4_dinov2',
        'deit3_small_patch16_224',
        'eva02_small_patch14_224',
        'vit_small_patch16_dinov3',
    ],
)
def test_every_parameter_of_real_models(arch):
    with torch.device('meta'):
        model = timm.create_model(arch, num_classes=0)
    depth = len(model.blocks)
    for name, _ in model.named_parameters():
        parts = name.split('.')
        if parts[0] == 'blocks':
            expected = 0.8 ** (depth - 1 - int(parts[1]))
        elif parts[0] in ('norm', 'fc_norm'):
            expected = 1
        else:
            expected = 0.8 ** (depth - 1)
        assert layer_decay_scale(name, depth, 0.8) == pytest.approx(expected, rel=1e-12)


def test_unknown_parameter_is_named():
    with pytest.raises(UserError, match='backbone.neck.weight'):
        layer_decay_scale('neck.weight', 12, 0.8)


def test_groups_of_a_model(toy_model):
    model = toy_model()  # 6 blocks, the last 3 masked
    wrapper = build(model, decay_rate=0.5)
    settings = settings_of_parameters(model, wrapper)
    expected = {'blocks.0': 1 / 32, 'blocks.1': 1 / 16, 'blocks.2': 1 / 8}
    expected |= {'blocks.3': 1 / 4, 'blocks.4': 1 / 2, 'blocks.5': 1, 'norm': 1}
    for name, group in settings.items():
        in_backbone = name.startswith('backbone.') and name != 'backbone.queries'
        part = next((part for part in expected if f'.{part}.' in name), None)
        factor = expected.get(part, 1 / 32) if in_backbone else 1
        assert group['is_backbone'] is in_backbone, name
        assert group['lr_scale'] == factor, name
        assert group['lr'] == 1e-4 * factor, name
        assert group['weight_decay'] == 0.05, name
    groups = wrapper.param_groups
    assert (groups[0]['lr'], groups[0]['is_backbone']) == (1e-4, True)
    # Six backbone factors, the head, and the defaults that MMEngine appends.
    assert len(groups) == 6 + 1 + 1
    assert 'is_backbone' not in groups[-1]


def test_last_blocks_at_full_rate_leave_the_others(toy_model):
    model = toy_model()
    wrapper = build(model, decay_rate=0.5, decay_last_blocks=False)
    settings = settings_of_parameters(model, wrapper)
    factors = [settings[f'backbone.blocks.{i}.weight']['lr_scale'] for i in range(6)]
    assert factors == [1 / 32, 1 / 16, 1 / 8, 1, 1, 1]
    # No prefix matching by accident: block 1 is not block 10.
    deep = toy_model(depth=12, num_blocks=2)
    settings = settings_of_parameters(deep, build(deep, decay_last_blocks=False))
    assert settings['backbone.blocks.1.weight']['lr_scale'] == pytest.approx(0.8**10)
    assert settings['backbone.blocks.10.weight']['lr_scale'] == 1


def test_a_backbone_without_queries_has_no_masked_blocks():
    """Steps (0) to (3) of the ladder train a plain ViT."""
    model = torch.nn.Module()
    small = dict(embed_dim=32, depth=3, num_heads=2)
    model.backbone = PlainViT(
        'vit_tiny_patch16_224', 32, pretrained=False, timm_args=small
    )
    for paramwise_cfg in ({}, dict(decay_last_blocks=False)):
        settings = settings_of_parameters(model, build(model, **paramwise_cfg))
        for i, factor in enumerate((0.64, 0.8, 1.0)):
            found = settings[f'backbone.blocks.{i}.attn.qkv.weight']['lr_scale']
            assert found == pytest.approx(factor)


def test_defaults_apply_without_paramwise_cfg(toy_model):
    model = toy_model()
    settings = settings_of_parameters(model, build(model))
    assert settings['backbone.blocks.0.weight']['lr_scale'] == pytest.approx(0.8**5)


def test_frozen_parameters_are_left_out(toy_model):
    model = toy_model()
    model.backbone.blocks.requires_grad_(False)
    optimized = [p for g in build(model).optimizer.param_groups for p in g['params']]
    assert len(optimized) == sum(p.requires_grad for p in model.parameters())


def test_config_errors(toy_model):
    for key in ('custom_keys', 'norm_decay_mult', 'decay'):
        with pytest.raises(UserError, match=f'{key}.*decay_rate, decay_last_blocks'):
            build(toy_model(), **{key: {}})
    with pytest.raises(UserError, match='depth'):
        build(torch.nn.Linear(1, 1))


def test_a_backbone_without_queries_has_no_last_blocks(toy_model):
    """A model as in the first steps of the ladder."""
    model = toy_model()
    del model.backbone.num_blocks
    settings = settings_of_parameters(model, build(model, decay_last_blocks=False))
    assert settings['backbone.blocks.0.weight']['lr_scale'] == pytest.approx(0.8**5)
    assert settings['backbone.blocks.4.weight']['lr_scale'] == pytest.approx(0.8)
