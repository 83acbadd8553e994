"""Tiny backbones whose tokens differ enough to be told apart."""

import pytest
import torch

from eomt_mm.models import MaskHead, MergingViT

ARCHS = {
    'dinov2': 'vit_small_patch14_reg4_dinov2',
    'eva02': 'eva02_tiny_patch14_224',
    'dinov3': 'vit_small_patch16_dinov3_qkvb',
}


@pytest.fixture
def tiny():
    """`tiny(token_merging=..., arch='eva02')` is a backbone with random weights."""

    def make(token_merging=None, arch='dinov2', img_size=64, **changes):
        torch.manual_seed(0)
        options = dict(
            patch_size=8,
            num_queries=3,
            num_blocks=2,
            pretrained=False,
            timm_args=dict(embed_dim=32, depth=5, num_heads=4),
        )
        vit = MergingViT(
            ARCHS[arch], img_size, token_merging=token_merging, **(options | changes)
        )
        for parameter in vit.parameters():
            torch.nn.init.normal_(parameter, std=0.25)
        return vit.eval()

    return make


@pytest.fixture
def head():
    """A mask head for the tiny backbones."""
    torch.manual_seed(1)
    return MaskHead(32, 4, patch_size=8).eval()


@pytest.fixture
def images():
    """Four images, from smooth to busy, so that each merges in its own way."""
    torch.manual_seed(2)
    noise = torch.randn(4, 3, 64, 64)
    y, x = torch.meshgrid(*[torch.linspace(-2, 2, 64)] * 2, indexing='ij')
    smooth = torch.stack((x, y, x * y))
    share = torch.tensor([0.0, 0.1, 0.5, 1.0])[:, None, None, None]
    return smooth + share * noise
