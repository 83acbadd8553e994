"""What stands between ViT and decoder in steps (1) to (3)."""

import pytest
import torch

from eomt_mm.errors import UserError
from eomt_mm.models import PlainViT
from eomt_mm.models.baselines import FeaturePyramid, LinearPixelDecoder


@pytest.mark.parametrize('patch_size', [8, 16])
def test_pyramid_scales_the_map_of_the_vit(patch_size):
    backbone = PlainViT(
        'vit_tiny_patch16_224',
        64,
        patch_size,
        pretrained=False,
        timm_args=dict(embed_dim=32, depth=2, num_heads=2),
    )
    assert 'queries' not in backbone.state_dict()
    pyramid = FeaturePyramid(32, patch_size=patch_size)
    feats = backbone(torch.randn(2, 3, 64, 64))
    scales = pyramid(feats)
    assert [x.shape for x in scales] == [
        (2, 32, 64 // s, 64 // s) for s in (4, 8, 16, 32)
    ]
    same = scales[[4, 8, 16, 32].index(patch_size)]
    assert torch.equal(same, feats[0])
    with pytest.raises(UserError, match='stride 12 .* cannot be reached'):
        FeaturePyramid(32, strides=(12,))


def test_linear_decoder_goes_from_coarse_to_fine():
    maps = [torch.randn(2, 32, 16 >> i, 16 >> i) for i in range(4)]
    decoder = LinearPixelDecoder([32] * 4, 16, 24)
    features, memories = decoder(maps)
    assert features.shape == (2, 24, 16, 16)
    assert [m.shape for m in memories] == [(2, 16, s, s) for s in (2, 4, 8)]
    expected = torch.einsum(
        'oc,bchw->bohw', decoder.projections[0].weight[:, :, 0, 0], maps[1]
    )
    bias = decoder.projections[0].bias[:, None, None]
    torch.testing.assert_close(memories[-1], expected + bias)
