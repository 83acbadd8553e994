"""The table of backbones in the documentation, name by name against timm."""

import re
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

import pytest
import timm
import torch
from timm.models import is_model_in_modules

from eomt_mm.errors import UserError
from eomt_mm.models import PlainViT
from eomt_mm.models.timm_vit import EVA_ARGS

TEXT = (Path(__file__).parents[2] / 'docs/model_zoo.md').read_text()
TEXT = TEXT[TEXT.index('## Backbones') :]
ROWS = [line.split('|') for line in TEXT.splitlines() if line.startswith('| ')][1:]
PATTERNS = [name for row in ROWS for name in re.findall('`(.*?)`', row[2])]
REFUSED = re.findall(r'`([^`]*vit_[^`]*)`', TEXT[TEXT.index('Refused by name') :])


def expand(pattern):
    """timm's names; `{a,b}` is a or b, and `?` is one digit."""
    parts = re.split('{(.*?)}', pattern)
    choices = [p.split(',') if i % 2 else [p] for i, p in enumerate(parts)]
    patterns = [''.join(choice).replace('?', '[0-9]') for choice in product(*choices)]
    return [n for n in timm.list_models() if any(fnmatch(n, p) for p in patterns)]


def small(name):
    options = dict(embed_dim=64, depth=2, num_heads=4)
    # A gated MLP of so few channels needs another ratio than that of the giants.
    return options | (dict(mlp_ratio=5.5) if 'giant_patch14' in name else {})


def test_the_table_is_read():
    assert len(ROWS) == 8 and len(PATTERNS) == 9 and len(REFUSED) == 4


@pytest.mark.parametrize('pattern', PATTERNS)
def test_every_name_equals_timms_forward(pattern):
    names = expand(pattern)
    assert len(names) >= 4
    for name in names:
        torch.manual_seed(0)
        eva = EVA_ARGS if is_model_in_modules(name, 'eva') else {}
        size = dict(img_size=64, patch_size=16)
        vit = timm.create_model(name, num_classes=0, **size, **small(name), **eva)
        for parameter in vit.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        options = dict(pretrained=False)
        ours = PlainViT(name, **size, **options, timm_args=small(name)).eval()
        ours.load_state_dict(vit.state_dict(), strict=True)
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            found = ours(images)[0].flatten(2).transpose(1, 2)
            expected = vit.eval().forward_features(images)[:, vit.num_prefix_tokens :]
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max(), name


@pytest.mark.parametrize('pattern', REFUSED)
def test_every_refused_name_is_refused(pattern):
    taken = expand('vit_*_rope_reg?_gap_*')
    names = [name for name in expand(pattern) if name not in taken]
    assert len(names) >= 4
    for name in names:
        with torch.device('meta'), pytest.raises(UserError, match=name):
            PlainViT(name, 224, pretrained=False, timm_args=dict(depth=4))
