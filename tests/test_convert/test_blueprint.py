"""What a config makes of a model."""

import subprocess
import sys

import oracle
import pytest
from mmengine.config import Config

from eomt_mm.convert.blueprint import blueprint
from eomt_mm.errors import UserError


def test_classes_of_ones_own(tmp_path):
    """The classes come from the config's `metainfo`, in builtin types."""
    path = oracle.write_config(tmp_path / 'own.py', 'gelu', classes=', num_classes=2')
    path.write_text(
        path.read_text()
        + 'test_dataloader = dict(dataset=dict('
        + 'metainfo=dict(classes=("road", "rest"), palette=[[1, 2, 3], [4, 5, 6]])))'
    )
    meta = blueprint(Config.fromfile(path), 'own.py').dataset_meta
    assert meta['classes'] == ('road', 'rest')
    assert {type(value) for value in meta.values()} <= {tuple, list}
    assert type(meta['palette'][0]) is list


def test_a_config_that_disagrees_with_itself(tmp_path):
    path = oracle.write_config(tmp_path / 'own.py', 'gelu', classes=', num_classes=2')
    with pytest.raises(UserError, match='7 classes in its test dataset, 2 in its head'):
        blueprint(Config.fromfile(path), 'own.py')


def test_a_config_of_another_model():
    model = dict(type='mmseg.FCNHead', in_channels=4, channels=4, num_classes=2)
    cfg = Config(dict(default_scope='mmseg', model=model))
    with pytest.raises(UserError, match='a FCNHead without the queries'):
        blueprint(cfg, 'fcn.py')
    with pytest.raises(UserError, match='has no model'):
        blueprint(Config(dict(default_scope='mmseg')), 'data.py')


def test_reading_needs_no_framework():
    code = (
        'import sys, eomt_mm.convert; frameworks = {"mmseg", "mmdet", "mmcv", "timm"}; '
        'sys.exit(f"imported: {frameworks & sys.modules.keys()}" '
        'if frameworks & sys.modules.keys() else 0)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
