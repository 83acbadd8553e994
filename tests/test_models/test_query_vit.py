"""The backbone: sizes, weights, and what a user can get wrong."""

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F

from eomt_mm.errors import UserError
from eomt_mm.models import MaskHead, PlainViT, QueryViT
from eomt_mm.models.network import Network

TINY = {'embed_dim': 32, 'depth': 4, 'num_heads': 2}


def tiny(**kwargs):
    options = {
        'arch': 'vit_small_patch14_reg4_dinov2',
        'img_size': 64,
        'num_queries': 3,
        'num_blocks': 2,
        'pretrained': False,
        'timm_args': TINY,
    }
    return QueryViT(**(options | kwargs))


def plain(arch):
    return PlainViT(arch, 64, pretrained=False, timm_args=TINY)


@pytest.mark.parametrize(
    'arch',
    [
        'vit_small_patch14_reg4_dinov2',
        'vit_giant_patch14_reg4_dinov2',
        'deit3_large_patch16_384',
        'vit_tiny_patch16_224',
        'vit_small_patch14_dinov2',
    ],
)
def test_tokens_equal_timms_when_queries_are_absent(arch):
    """`PlainViT` is timm's ViT."""
    torch.manual_seed(0)
    backbone = plain(arch).eval()
    vit = timm.create_model(arch, num_classes=0, img_size=64, patch_size=16, **TINY)
    vit.load_state_dict(
        {k: v for k, v in backbone.state_dict().items() if k != 'queries'}, strict=False
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (patches,) = backbone(images)
        expected = vit.eval().forward_features(images)[:, vit.num_prefix_tokens :]
    assert torch.equal(patches.flatten(2).transpose(1, 2), expected)


def test_names_below_the_backbone_are_timms():
    ours = tiny().state_dict().keys() - {'queries'}
    theirs = timm.create_model(
        'vit_small_patch14_reg4_dinov2',
        num_classes=0,
        img_size=64,
        patch_size=16,
        **TINY,
    ).state_dict()
    assert ours == theirs.keys()


def test_queries_skip_the_first_blocks_and_change_the_patches():
    torch.manual_seed(0)
    backbone = tiny().eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randn(1, 3, 64, 64)
    seen = []
    for block in backbone.blocks:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    with torch.no_grad():
        before = backbone(images)[1]
        backbone.queries.add_(1.0)
        after = backbone(images)[1]
    assert seen[:4] == [16 + 5, 16 + 5, 3 + 5 + 16, 3 + 5 + 16]
    assert not torch.allclose(before, after)


def test_every_prediction_is_computed_once_and_a_free_block_has_no_mask():
    backbone, head = tiny(), MaskHead(32, 5)
    calls, masks = [], []
    head.register_forward_hook(lambda *_: calls.append(1))
    for block in backbone.blocks[-2:]:
        block.register_forward_pre_hook(lambda _, args: masks.append(args[1]))
    backbone.mask_probs = [1.0, 0.0]
    predictions = backbone.forward_masked(torch.randn(1, 3, 64, 64), head)
    assert len(calls) == len(predictions) == 3
    assert masks[0].shape == (1, 3, 16)
    assert masks[1] is None


def test_free_blocks_leave_nothing_of_the_masks():
    backbone, head = tiny().eval(), MaskHead(32, 5).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain = head(*backbone(images))
        last = backbone.forward_masked(images, head)[-1]
    assert all(torch.equal(a, b) for a, b in zip(plain, last, strict=True))


def test_without_supervision_in_between_one_prediction_is_left():
    backbone, head = tiny(deep_supervision=False), MaskHead(32, 5)
    images = torch.randn(1, 3, 64, 64)
    (last,) = backbone.forward_masked(images, head)
    assert all(map(torch.equal, last, head(*backbone(images))))


def test_predict_masks_while_mask_probs_says_so():
    torch.manual_seed(0)
    backbone, head = tiny().eval(), MaskHead(32, 5).eval()
    for parameter in [*backbone.parameters(), *head.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain, expected_plain = Network(backbone, head)(images), head(*backbone(images))
        backbone.mask_probs = [0.0, 1.0]
        masked = Network(backbone, head)(images)
        expected = backbone.forward_masked(images, head)[-1]
    assert all(map(torch.equal, plain, expected_plain))
    assert all(map(torch.equal, masked, expected))
    assert not torch.allclose(masked[1], plain[1])


def save_timm_weights(path, img_size=56):
    """Weights of a tiny DINOv2 with patches of 14, as they are pre-trained."""
    torch.manual_seed(1)
    vit = timm.create_model(
        'vit_small_patch14_reg4_dinov2', num_classes=0, img_size=img_size, **TINY
    )
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    safetensors.torch.save_file(vit.state_dict(), path)
    return vit.state_dict()


def test_weights_of_a_file_are_resized_and_survive_init_weights(tmp_path):
    path = str(tmp_path / 'model.safetensors')
    weights = save_timm_weights(path)
    backbone = tiny(pretrained=path)
    queries = backbone.queries.detach().clone()
    backbone.init_weights()
    state = backbone.state_dict()
    assert torch.equal(
        state['blocks.3.mlp.fc1.weight'], weights['blocks.3.mlp.fc1.weight']
    )
    assert torch.equal(state['queries'], queries)

    # 4 x 4 positions stay as they are; the patch kernel goes from 14 to 16 by the
    # pseudo-inverse of the transposed resizing.
    assert torch.equal(state['pos_embed'], weights['pos_embed'])
    basis = torch.eye(14 * 14).view(-1, 1, 14, 14)
    resize = F.interpolate(basis, (16, 16), mode='bicubic', antialias=True).flatten(1).T
    kernel = weights['patch_embed.proj.weight'].flatten(2)
    expected = kernel @ torch.linalg.pinv(resize.T).T
    torch.testing.assert_close(
        state['patch_embed.proj.weight'].flatten(2), expected, rtol=1e-3, atol=1e-4
    )


def test_positions_are_resized_bicubic_and_antialiased(tmp_path):
    path = str(tmp_path / 'model.safetensors')
    weights = save_timm_weights(path, img_size=112)  # 8 x 8 positions to 4 x 4
    backbone = tiny(pretrained=path)
    backbone.init_weights()
    grid = weights['pos_embed'].unflatten(1, (8, 8)).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (4, 4), mode='bicubic', antialias=True)
    torch.testing.assert_close(
        backbone.pos_embed.data, expected.flatten(2).transpose(1, 2)
    )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'img_size': 70}, '70 x 70 is not a multiple of the patch size 16'),
        ({'arch': 'vit_large_patch14_reg4_dinov'}, 'vit_large_patch14_reg4_dinov2'),
        ({'arch': 'deit3_large_patch16_384.fb'}, 'deit3_large_patch16_384.fb_in1k'),
        ({'arch': 'resnet50', 'timm_args': {}}, 'plain ViT'),
        ({'timm_args': {'embed_dim': 33, 'num_heads': 2}}, 'should be divisible'),
        ({'arch': 'swin_tiny_patch4_window7_224', 'timm_args': {}}, 'plain ViT'),
        (
            {
                'arch': 'vit_medium_patch16_reg4_gap_256',
                'timm_args': TINY | {'num_heads': 2},
            },
            'no norm after its last block',
        ),
        ({'num_blocks': 5}, 'num_blocks is 5, but .* has 4 blocks'),
        ({'num_blocks': 0}, 'between 1 and 4'),
        ({'mask_probs': [1.0]}, 'mask_probs has 1 values'),
        ({'mask_probs': []}, 'mask_probs has 0 values'),
        (
            {'mask_probs': [1.0, 0.0], 'deep_supervision': False},
            'no predictions to mask with',
        ),
    ],
)
def test_wrong_arguments_are_explained(options, message):
    with pytest.raises(UserError, match=message):
        tiny(**options)


def test_images_of_another_size_are_explained():
    with pytest.raises(UserError, match='built for images of 64 x 64 .* got 64 x 80'):
        tiny()(torch.randn(1, 3, 64, 80))


def test_missing_and_broken_weights_are_explained(tmp_path):
    with pytest.raises(UserError, match='nowhere.pth'):
        tiny(pretrained='nowhere.pth').init_weights()
    broken = tmp_path / 'broken.pth'
    broken.write_bytes(b'not a checkpoint')
    with pytest.raises(UserError, match='broken.pth is not a file of weights'):
        tiny(pretrained=str(broken)).init_weights()
    other = tmp_path / 'other.safetensors'
    safetensors.torch.save_file({'weight': torch.zeros(2)}, other)
    with pytest.raises(UserError, match='does not hold weights of'):
        tiny(pretrained=str(other)).init_weights()


def test_downloaded_weights_that_do_not_fit_are_no_matter_of_the_hub(monkeypatch):
    def misfit(*_, **kwargs):
        if kwargs.get('pretrained'):
            raise RuntimeError('size mismatch for pos_embed')
        return created(*_, **kwargs)

    created = timm.create_model
    monkeypatch.setattr(timm, 'create_model', misfit)
    with pytest.raises(UserError, match='do not fit .*size mismatch for pos_embed'):
        tiny(pretrained=True).init_weights()


def test_offline_download_names_model_file_and_option(monkeypatch):
    def offline(*_, **kwargs):
        if kwargs.get('pretrained'):
            raise ConnectionError('no route to host')
        return created(*_, **kwargs)

    created = timm.create_model
    monkeypatch.setattr(timm, 'create_model', offline)
    with pytest.raises(UserError) as error:
        tiny(pretrained=True).init_weights()
    for part in (
        'vit_small_patch14_reg4_dinov2',
        'model.safetensors',
        'huggingface.co/timm/vit_small_patch14_reg4_dinov2.lvd142m',
        'model.backbone.pretrained=PATH',
    ):
        assert part in str(error.value)


def gradients(vit):
    """Gradients of one masked step by name, from fixed weights and masks."""
    torch.manual_seed(0)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    head = MaskHead(num_classes=3, embed_dims=32, patch_size=16)
    predictions = vit.train().forward_masked(torch.randn(2, 3, 64, 64), head)
    sum(c.square().mean() + m.square().mean() for c, m in predictions).backward()
    return {n: p.grad for n, p in vit.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
def test_activation_checkpointing_leaves_gradients_as_they_are():
    from mmengine.runner.activation_checkpointing import (
        turn_on_activation_checkpointing,
    )

    masked = dict(mask_probs=[1.0, 1.0])
    plain, sparing = gradients(tiny(**masked)), tiny(**masked)
    turn_on_activation_checkpointing(sparing, [f'blocks.{i}' for i in range(4)])
    for name, gradient in gradients(sparing).items():
        assert torch.equal(gradient, plain.pop(name)), name
    assert not plain
