"""The config inside a checkpoint, from which nothing of a stranger's is run."""

import pytest
from mmengine.config import Config

from eomt_mm.checkpoints import read_literals
from eomt_mm.convert.stored_config import stored_config
from eomt_mm.errors import UserError

MODEL = "default_scope = 'mmdet'\nmodel = dict(type='eomt_mm.EoMTDetector', {})"


@pytest.mark.parametrize(
    'name', ['eomt/eomt_vitl_ade20k_panoptic_640', 'demo/eomt_scenes_semantic']
)
def test_configs_are_read_without_being_run(root, name):
    cfg = Config.fromfile(root / f'configs/{name}.py')
    assert read_literals(cfg.pretty_text) == cfg.to_dict()
    stored = stored_config(cfg.pretty_text)
    assert stored.model == cfg.model and stored.default_scope == cfg.default_scope


def test_keys_that_are_no_names():
    """MMEngine writes them as `{'a.b': 1}`, below the top level inside a `dict`."""
    cfg = Config(dict(x=dict(custom_keys={'a.b': dict(c=-1), 'd': [None, (1,)]})))
    assert read_literals(cfg.pretty_text) == cfg.to_dict()
    items = Config(dict(x=[{'a.b': 1}]))
    assert read_literals(items.pretty_text) == items.to_dict()


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        'x = open("/etc/passwd").read()',
        'x = dict(a=list(range(3)))',
        'x = dict(a=(lambda: 1)())',
        'x = dict(*[1, 2])',
        'x = dict(**{})',
        'x = dict({}, a=1)',
        'x.y = 1',
        'print(1)',
        'x = (',
        'x = [a for a in ()]',
        'x = __import__("os")',
    ],
)
def test_anything_but_literals_is_refused(text):
    with pytest.raises(UserError, match='more than literals .* is not run'):
        stored_config(text)


@pytest.mark.parametrize(
    ('inside', 'named'),
    [
        ("backbone=dict(type='os.system', command='x')", 'os.system'),
        ("a=[dict(b=dict(type='mmengine.load', file='x'))]", 'mmengine.load'),
        ("backbone=dict(type='eomt_mm.registry')", 'eomt_mm.registry'),
        ("backbone=dict(type='ResNet')", 'ResNet'),
        ("backbone=dict(timm_args=dict(checkpoint_path='x'))", 'checkpoint_path'),
        ('backbone=dict(timm_args=dict(pretrained_cfg=dict()))', 'pretrained_cfg'),
    ],
)
def test_only_this_packages_classes_are_built(inside, named):
    with pytest.raises(UserError, match=f'{named!r}, which is not of this package'):
        stored_config(MODEL.format(inside))


@pytest.mark.parametrize('text', ["default_scope = 'os'\nmodel = dict()", 'x = 1'])
def test_only_known_scopes(text):
    with pytest.raises(UserError, match='no model of MMSegmentation or MMDetection'):
        stored_config(text)
