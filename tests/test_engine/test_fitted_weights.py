"""Weights of another model, fitted to one: position codes, heads, queries."""

import copy

import pytest
import torch

from eomt_mm.engine.fine_tuning import _backbone_settings, fit_weights
from eomt_mm.errors import UserError
from four_classes import CLASS_HEAD, DINOV2, DINOV3, EVA02, build, pillow_resized


@pytest.mark.parametrize('arch', ['vit_tiny_patch16_224', DINOV2, EVA02])
@pytest.mark.parametrize(
    ('old', 'new'), [((4, 4), (8, 8)), ((8, 8), (3, 5)), ((2, 8), (4, 4))]
)
def test_position_codes_are_resized_as_pillow_does(arch, old, new):
    """Codes may include that of CLS (the first) or not; the last has equal numbers."""
    sizes = [tuple(8 * side for side in grid) for grid in (old, new)]
    theirs, ours = (build(arch=arch, img_size=size) for size in sizes)
    loaded = theirs.state_dict()
    fitted, _ = fit_weights(ours, loaded, old_grid=old)
    codes, resized = (s['backbone.pos_embed'] for s in (loaded, fitted))
    prefix = 0 if arch == DINOV2 else 1
    assert codes.shape[1] - prefix == old[0] * old[1]
    assert torch.equal(resized[:, :prefix], codes[:, :prefix])
    expected = pillow_resized(codes[:, prefix:], old, new)
    torch.testing.assert_close(resized[:, prefix:], expected, rtol=0, atol=1e-6)


def test_dinov3_has_no_position_codes_to_resize():
    theirs, ours = build(arch=DINOV3, seed=1), build(arch=DINOV3, img_size=64)
    loaded = theirs.state_dict()
    fitted, table = fit_weights(ours, loaded)
    assert table == [('loaded unchanged', f'{len(loaded)} tensors')]
    assert all(fitted[key] is loaded[key] for key in loaded)


def test_half_precision_is_resized_in_full():
    theirs, ours = build(), build(img_size=64)
    loaded = theirs.half().state_dict()
    codes = loaded['backbone.pos_embed']
    resized = fit_weights(ours, loaded)[0]['backbone.pos_embed']
    assert resized.dtype == torch.float32
    expected = pillow_resized(codes[:, 1:].float(), (4, 4), (8, 8))
    torch.testing.assert_close(resized[:, 1:], expected, rtol=0, atol=1e-6)


def test_other_patches_are_resized_as_timm_resizes_pretrained_ones(tmp_path):
    theirs = build(patch_size=16, img_size=64, seed=1)
    loaded = theirs.state_dict()
    file, backbone = tmp_path / 'vit.pth', 'backbone.'
    vit = {k.removeprefix(backbone): v for k, v in loaded.items() if backbone in k}
    torch.save({k: v for k, v in vit.items() if k != 'queries'}, file)
    embed, grid = 'backbone.patch_embed.proj.weight', (4, 4)
    for size, blocks in ((32, 3), (8, 1)):
        ours = build(patch_size=size, img_size=64)
        before = copy.deepcopy(ours.state_dict())
        fitted, table = fit_weights(ours, loaded, old_grid=grid)
        ours.load_state_dict(fitted, strict=True)
        expected = build(patch_size=size, img_size=64, pretrained=str(file))
        expected.init_weights()
        for key in (embed, 'backbone.pos_embed'):
            torch.testing.assert_close(fitted[key], expected.state_dict()[key])
        assert ('resized', f'{embed}: patches of 16 -> {size} pixels') in table
        words = [f'{what} {row}' for what, row in table if 'upscale' in row]
        if blocks > 2:
            why = 'the checkpoint has smaller patches'
            assert f'started anew decode_head.upscale.2.norm: {why}' in words
        else:
            assert words == ['not used decode_head.upscale: 5 tensors']
        for key, initial in before.items():
            if '.upscale.' in key:
                assert fitted[key] is loaded.get(key, fitted[key])
                assert key in loaded or torch.equal(fitted[key], initial)


def test_other_patches_without_a_head():
    theirs, ours = build(patch_size=8), build(patch_size=16)
    loaded = {k: v for k, v in theirs.state_dict().items() if 'head' not in k}
    fitted, table = fit_weights(ours, loaded)
    ours.load_state_dict(fitted, strict=True)
    anew = [row for what, row in table if what == 'started anew']
    assert anew == ['decode_head: not in the checkpoint']


@pytest.mark.parametrize('shape', [(), (32,), (32, 3, 0, 0), (32, 3, 65, 65)])
def test_an_odd_patch_embedding_is_refused(shape):
    loaded = build().state_dict()
    loaded['backbone.patch_embed.proj.weight'] = torch.zeros(shape)
    with pytest.raises(UserError, match='backbone.patch_embed.proj.weight is'):
        fit_weights(build(patch_size=16), loaded)


def test_an_unknown_rectangle_is_refused():
    theirs, ours = build(img_size=(16, 32)), build()
    with pytest.raises(UserError, match='codes for 8 patches: this is no square'):
        fit_weights(ours, theirs.state_dict())


def test_what_starts_anew_is_what_was_initialised():
    theirs, ours = build(seed=1), build(num_classes=7, num_queries=9)
    before = copy.deepcopy(ours.state_dict())
    fitted, _ = fit_weights(ours, theirs.state_dict())
    for key in (*CLASS_HEAD, 'backbone.queries'):
        assert torch.equal(fitted[key], before[key])
    ours.load_state_dict(fitted, strict=True)


def test_a_missing_head_starts_anew():
    theirs, ours = build(seed=1), build()
    loaded = {k: v for k, v in theirs.state_dict().items() if 'head' not in k}
    fitted, table = fit_weights(ours, loaded)
    assert table[1:] == [('started anew', 'decode_head: not in the checkpoint')]
    for key, value in ours.state_dict().items():
        expected = value if key.startswith('decode_head.') else loaded[key]
        assert torch.equal(fitted[key], expected)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (
            'model = dict(backbone=dict(num_blocks=4, depth=x, img_size=64))',
            (4, (4, 4)),
        ),
        (
            'a = dict(num_blocks=9)\nmodel = dict(head=[1], module=dict(backbone=dict('
            'img_size=(\n 64, 32), patch_size=8, num_blocks=3)))',
            (3, (8, 4)),
        ),
        (
            'model = dict(backbone=dict(arch="a.b", timm_args=dict(num_heads=3, x=1)))',
            ('a.b', 3),
        ),
        ('model = dict(backbone=dict(num_blocks=3, timm_args=None))', (3,)),
        ('', ()),
        ('model = dict(', ()),
        ('model = dict(backbone=None)', ()),
        ('model = dict(backbone=dict(num_blocks=print("run")))', ()),
        ('model = dict(backbone=dict(img_size="64", num_blocks=3))', ()),
    ],
)
def test_settings_are_read_from_the_text_of_a_config(text, expected, capsys):
    settings = _backbone_settings(text)
    assert (
        *(
            settings[k]
            for k in ('num_blocks', 'grid', 'arch', 'num_heads')
            if k in settings
        ),
    ) == expected
    assert not capsys.readouterr().out
