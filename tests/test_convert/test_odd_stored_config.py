"""The config in a checkpoint can ask for no endless model."""

import pytest

from eomt_mm.convert.stored_config import stored_config
from eomt_mm.errors import UserError


@pytest.mark.parametrize('depth', (10**8, -1, "'x'", '[3]'))
def test_depth(depth):
    backbone = f'dict(timm_args=dict(depth={depth}))'
    text = f"default_scope='mmseg'\nmodel=dict(backbone={backbone})"
    with pytest.raises(UserError, match='depth'):
        stored_config(text)
