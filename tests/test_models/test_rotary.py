"""ViTs with rotary position codes (EVA-02, DINOv3) against timm's own forward."""

import pytest
import safetensors.torch
import timm
import torch

from eomt_mm.errors import UserError
from eomt_mm.models import Criterion, MaskHead, PlainViT, QueryViT, Target

TINY = {'embed_dim': 64, 'depth': 4, 'num_heads': 2}
ARCHS = [
    'vit_small_patch16_dinov3_qkvb',
    'vit_small_patch16_dinov3',
    'eva02_large_patch14_224',
    'eva02_base_patch14_224',
    'vit_medium_patch16_rope_reg1_gap_256',
]


def tiny(arch, **kwargs):
    torch.manual_seed(0)
    options = dict(num_queries=3, num_blocks=2, pretrained=False, timm_args=TINY)
    backbone = QueryViT(arch, 64, **(options | kwargs))
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return backbone


def plain(arch):
    torch.manual_seed(0)
    backbone = PlainViT(arch, 64, pretrained=False, timm_args=TINY)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return backbone


def timms(arch, state):
    """timm's model, with the norm on the tokens."""
    vit = timm.create_model(
        arch,
        num_classes=0,
        img_size=64,
        patch_size=16,
        use_post_transformer_norm=True,
        use_fc_norm=False,
        **TINY,
    )
    vit.load_state_dict({k: v for k, v in state.items() if k != 'queries'})
    return vit


@pytest.mark.parametrize('arch', ARCHS)
@pytest.mark.parametrize('training', [False, True])
def test_tokens_equal_timms_when_queries_are_absent(arch, training):
    """Training does not augment rotary codes either."""
    backbone = plain(arch).train(training)
    vit = timms(arch, backbone.state_dict()).train(training)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (patches,) = backbone(images)
        expected = vit.forward_features(images)[:, vit.num_prefix_tokens :]
    torch.testing.assert_close(
        patches.flatten(2).transpose(1, 2), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('arch', ARCHS[:3])
def test_queries_are_seen_by_nobody_but_as_tokens_without_a_place(arch):
    """A block with queries equals timm's block that takes them for prefix tokens."""
    backbone = tiny(arch).eval()
    vit = timms(arch, backbone.state_dict()).eval()
    for block in vit.blocks[-2:]:
        block.attn.num_prefix_tokens += 3
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        x = vit.patch_embed(images)
        x, rope = vit._pos_embed(x)
        for block in vit.blocks[:2]:
            x = block(x, rope=rope)
        x = torch.cat((backbone.queries.expand(2, -1, -1), x), dim=1)
        for block in vit.blocks[2:]:
            x = block(x, rope=rope)
        x = vit.norm(x)
        queries, patches = backbone(images)
    torch.testing.assert_close(queries, x[:, :3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        patches.flatten(2).transpose(1, 2),
        x[:, 3 + vit.num_prefix_tokens :],
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize('arch', ARCHS[:3])
def test_turning_the_image_changes_patches_as_in_timm(arch):
    """Patches know their place: turned patches in, not the same turned tokens out."""
    backbone = plain(arch).eval()
    vit = timms(arch, backbone.state_dict()).eval()
    patches = torch.randn(1, 3, 16, 16).repeat(1, 1, 4, 4)
    patches += torch.randn(1, 3, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    turned = patches.unflatten(2, (4, 16)).unflatten(4, (4, 16))
    turned = turned.permute(0, 1, 4, 3, 2, 5).flip(2).flatten(4).flatten(2, 3)
    with torch.no_grad():
        before, after = (backbone(image)[-1] for image in (patches, turned))
        expected = vit.forward_features(turned)[:, vit.num_prefix_tokens :]
    torch.testing.assert_close(
        after.flatten(2).transpose(1, 2), expected, rtol=1e-5, atol=1e-5
    )
    assert (after - before.rot90(1, (2, 3))).abs().max() > 1e-2


@pytest.mark.parametrize('arch', ARCHS[:3])
def test_queries_have_no_place(arch):
    """Queries in another order: the same results in that order, equal patches."""
    backbone = tiny(arch).eval()
    images = torch.randn(1, 3, 64, 64)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        queries, patches = backbone(images)
        backbone.queries.copy_(backbone.queries[order])
        moved, same = backbone(images)
    torch.testing.assert_close(moved, queries[:, order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(same, patches, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('arch', ARCHS[:3])
@pytest.mark.parametrize('probs', [[1.0, 1.0], [0.5, 0.0], [0.0, 0.0]])
def test_training_step(arch, probs):
    backbone, head = tiny(arch).train(), MaskHead(64, 5).train()
    backbone.mask_probs = probs
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, :32], masks[1, 32:] = True, True
    targets = [Target(torch.tensor([1, 3]), masks)] * 2
    predictions = backbone.forward_masked(torch.randn(2, 3, 64, 64), head)
    losses = Criterion(num_points=64)(predictions, targets)
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in backbone.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    assert gradients['queries'].abs().max() > 0


@pytest.mark.parametrize('arch', ARCHS[:3])
def test_masks_hide_patches_from_queries(arch):
    """Against the full mask over all tokens, put into timm's own blocks."""
    backbone, head = tiny(arch, num_blocks=1).eval(), MaskHead(64, 5).eval()
    vit = timms(arch, backbone.state_dict()).eval()
    images = torch.randn(2, 3, 64, 64)
    backbone.mask_probs = [1.0]
    with torch.no_grad():
        predictions = backbone.forward_masked(images, head)
        x, rope = vit._pos_embed(vit.patch_embed(images))
        for block in vit.blocks[:3]:
            x = block(x, rope=rope)
        x = torch.cat((backbone.queries.expand(2, -1, -1), x), dim=1)
        logits = torch.nn.functional.interpolate(
            predictions[0][1], (4, 4), mode='bilinear'
        )
        mask = torch.ones(2, 1, x.shape[1], x.shape[1], dtype=torch.bool)
        mask[:, 0, :3, -16:] = logits.flatten(2) > 0
        vit.blocks[3].attn.num_prefix_tokens += 3
        x = vit.norm(vit.blocks[3](x, rope=rope, attn_mask=mask))
        patches = x[:, -16:].transpose(1, 2).unflatten(2, (4, 4))
        expected = head(x[:, :3], patches)
    assert not mask.all(), 'nothing was masked'
    for ours, theirs in zip(predictions[-1], expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('arch', ARCHS)
def test_names_below_the_backbone_are_timms(arch):
    """Rotary codes are computed, not stored."""
    backbone = tiny(arch)
    timms(arch, backbone.state_dict())  # loads strictly
    assert not any('rope' in key for key in backbone.state_dict())


def test_dinov3_norms_have_their_own_epsilon():
    backbone = tiny('vit_small_patch16_dinov3_qkvb')
    assert backbone.norm.eps == backbone.blocks[0].norm1.eps == 1e-5


def test_eva02_file_in_its_authors_layout(tmp_path):
    """Pre-trained by masked image modelling: its last norm becomes the tokens' norm."""
    torch.manual_seed(1)
    vit = timm.create_model(
        'eva02_base_patch14_224', num_classes=0, img_size=56, **TINY
    )
    weights = {
        key.replace('fc_norm.', 'norm.'): torch.randn_like(value)
        for key, value in vit.state_dict().items()
    }
    weights['mask_token'] = torch.randn(1, 1, 64)
    path = str(tmp_path / 'model.safetensors')
    safetensors.torch.save_file(weights, path)
    backbone = tiny('eva02_base_patch14_224', pretrained=path)
    backbone.init_weights()
    state = backbone.state_dict()
    for name in ('norm.weight', 'blocks.1.mlp.fc2.weight', 'pos_embed', 'cls_token'):
        assert torch.equal(state[name], weights[name]), name
    assert state['patch_embed.proj.weight'].shape[2:] == (16, 16)


@pytest.mark.parametrize(
    ('arch', 'timm_args'),
    [
        ('vit_small_patch16_rope_mixed_224', {}),  # codes that differ between blocks
        ('vit_pe_core_tiny_patch16_384', {}),
        ('eva02_base_patch14_224', {'dynamic_img_size': True}),
    ],
)
def test_other_kinds_are_refused(arch, timm_args):
    with pytest.raises(UserError, match='take a vit_'):
        QueryViT(arch, 384, pretrained=False, timm_args=timm_args)
