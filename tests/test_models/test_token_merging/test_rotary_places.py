"""Rotary codes between the patches, against timm's for another grid."""

import math

import pytest
import torch

from eomt_mm.errors import UserError
from eomt_mm.models.token_merging.rotary import check_steps, grid_places, rotary_at


@pytest.mark.parametrize('arch', ['eva02', 'dinov3'])
@pytest.mark.parametrize('img_size', [64, (64, 512), (40, 64)])
def test_patches_have_their_own_codes(tiny, arch, img_size):
    vit = tiny(arch=arch, img_size=img_size)
    table = vit.rotary_codes()
    places = grid_places(vit.grid)[None]
    found = rotary_at(table, vit.grid, places)
    assert found.shape == (1, 1, len(table), table.shape[1])
    torch.testing.assert_close(found[0, 0], table, atol=5e-7, rtol=0)


def test_centres_of_windows_have_the_codes_of_the_coarser_grid(tiny):
    """DINOv3's coordinates are centred: a 2 x 2 window is a patch twice as large."""
    fine = tiny(arch='dinov3', img_size=(64, 96))
    coarse = tiny(arch='dinov3', img_size=(64, 96), patch_size=16)
    rows, cols = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing='ij')
    centres = torch.stack((2 * rows + 0.5, 2 * cols + 0.5), dim=-1).view(1, -1, 2)
    found = rotary_at(fine.rotary_codes(), fine.grid, centres)[0, 0]
    torch.testing.assert_close(found, coarse.rotary_codes(), atol=2e-6, rtol=0)


def test_angles_are_means_of_angles_in_eva02(tiny):
    vit = tiny(arch='eva02')
    bands = vit.rope.bands.double()
    scale = vit.rope.ref_feat_shape[0] / vit.grid[0]
    place = torch.tensor([[[2.25, 5.5]]])
    angles = torch.cat([p * scale * bands for p in place[0, 0].double()])
    angles = angles.repeat_interleave(2)
    expected = torch.cat((angles.sin(), angles.cos())).float()
    found = rotary_at(vit.rotary_codes(), vit.grid, place)
    torch.testing.assert_close(found[0, 0, 0], expected, atol=5e-7, rtol=0)


def test_a_single_row_has_no_step():
    table = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # d = 1: angles 0 and pi / 2
    found = rotary_at(table, (1, 2), torch.tensor([[[0.0, 0.5]]]))
    half = 0.5**0.5
    torch.testing.assert_close(found, torch.tensor([[[[half, half]]]]))


def angles_by_timm(arch, rope, grid, place):
    """Codes at any place, from timm's own bands."""
    if arch == 'eva02':
        scales = [16 / side for side in grid]
        angles = [
            p * s * rope.bands.double() for p, s in zip(place, scales, strict=True)
        ]
        return torch.cat(angles).repeat_interleave(2)
    places = [2 * (p + 0.5) / side - 1 for p, side in zip(place, grid, strict=True)]
    angles = [2 * math.pi * p / rope.periods.double() for p in places]
    return torch.cat(angles).repeat(2)


@pytest.mark.parametrize(('arch', 'least'), [('eva02', 6), ('dinov3', 5)])
def test_between_patches_codes_are_right_or_the_grid_is_refused(tiny, arch, least):
    place = (1.25, 0.75)
    for side in range(2, 10):
        vit = tiny(arch=arch, img_size=(8 * side, 80))
        if side < least:
            with pytest.raises(UserError, match=f'{side} x 10 .* of {least} or more'):
                check_steps(vit.rope, vit.grid)
            continue
        check_steps(vit.rope, vit.grid)
        angles = angles_by_timm(arch, vit.rope, vit.grid, place)
        expected = torch.cat((angles.sin(), angles.cos())).float()
        found = rotary_at(vit.rotary_codes(), vit.grid, torch.tensor([[place]]))
        torch.testing.assert_close(found[0, 0, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize('arch', ['eva02', 'dinov3'])
def test_merging_on_a_small_grid_is_refused_before_anything_runs(tiny, arch):
    method = dict(type='eomt_mm.ALGM', threshold=0.9)
    with pytest.raises(UserError, match='larger images'):
        tiny(method, arch=arch, img_size=(64, 32))
    tiny(method, img_size=(64, 32))
