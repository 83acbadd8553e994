"""Pre-trained weights of shapes that timm does not expect are one line."""

import pytest
import timm
import torch

from eomt_mm.errors import UserError
from eomt_mm.models.pretrained import load_timm_weights

ARCH, ARGS = 'vit_tiny_patch16_224', dict(depth=1)


@pytest.mark.parametrize(
    'key, shape',
    (
        ('pos_embed', ()),
        ('pos_embed', (0,)),
        ('pos_embed', (1, 7, 192)),
        ('patch_embed.proj.weight', (2,) * 5),
        ('patch_embed.proj.weight', (192, 3, 0, 0)),
        ('cls_token', ()),
    ),
)
def test_odd_shapes(tmp_path, key, shape):
    weights = timm.create_model(ARCH, num_classes=0, **ARGS).state_dict()
    torch.save({**weights, key: torch.zeros(shape)}, tmp_path / 'vit.pth')
    with pytest.raises(UserError, match='does not hold weights'):
        load_timm_weights(ARCH, str(tmp_path / 'vit.pth'), ARGS)
