"""What all tests share."""

import functools
import importlib.util
import sys
from pathlib import Path

import pytest
from mmengine.utils import ManagerMixin

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='session')
def root():
    """The repository."""
    return ROOT


@pytest.fixture(scope='session')
def real_data():
    """Real photographs with ground truth, kept beside the repository."""
    path = ROOT.parent / 'shared' / 'data'
    if not path.is_dir():
        pytest.skip(f'needs the real photographs in {path}')
    return path


@functools.cache
def load_tool(name: str):
    """Imports `tools/<name>.py`; the tools are scripts, not a package."""
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # worker processes look it up by name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def tool():
    """`tool('train')` is `tools/train.py` as a module."""
    return load_tool


@pytest.fixture(scope='session')
def run_tool():
    """`run_tool('train', *argv)` is the `main` of `tools/train.py`, in this process."""
    return lambda name, *argv: load_tool(name).main([str(arg) for arg in argv])


@pytest.fixture(scope='session')
def scenes(tmp_path_factory, run_tool):
    """Eight scenes to train on and three for validation; nobody writes there."""
    out = tmp_path_factory.mktemp('data') / 'scenes'
    options = ('--train', 8, '--val', 3, '--workers', 1)
    run_tool('dataset_converters/make_scenes', out, *options)
    return out / 'ADEChallengeData2016'


@pytest.fixture(autouse=True)
def fresh_managers():
    """Leaves no logger, visualizer or default scope of MMEngine to the next test."""
    yield
    managers = [ManagerMixin]
    for manager in managers:
        managers += manager.__subclasses__()
        manager._instance_dict.clear()
