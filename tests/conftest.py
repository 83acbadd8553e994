"""What all tests share."""

import importlib.util
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


@pytest.fixture(scope='session')
def run_tool():
    """`run_tool('train', *argv)` is the `main` of `tools/train.py`, in this process."""

    def run(name, *argv):
        path = ROOT / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main([str(arg) for arg in argv])

    return run


@pytest.fixture(autouse=True)
def fresh_managers():
    """Leaves no logger, visualizer or default scope of MMEngine to the next test."""
    yield
    managers = [ManagerMixin]
    for manager in managers:
        managers += manager.__subclasses__()
        manager._instance_dict.clear()
