"""Stand-ins for MMEngine and SciPy, for machines that have torch and timm alone.

The core takes little from them: a registry to be listed in, a base class without any
effect here, a version to compare. That much is real; every other name can be imported,
and raises when it is used, saying which package it belongs to. Training needs SciPy.
"""

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import torch

PACKAGES = ('mmengine', 'scipy')


def fill_in() -> list[str]:
    """Let what is missing be imported.

    Returns:
        list[str]: The packages that are missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        sys.meta_path.append(_Finder(missing))
    return missing


class Registry:
    """MMEngine's, without the list."""

    def __init__(self, name: str, parent: object = None, locations: list = ()) -> None:
        self.name = name

    def register_module(self, *_args, **_kwargs):
        """Change nothing."""
        return _as_it_is

    def build(self, cfg: dict) -> None:
        """Refuse."""
        raise ModuleNotFoundError(f'building {cfg.get("type")} needs mmengine')


class BaseModule(torch.nn.Module):
    """MMEngine's, without initialisation from a config."""

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__()


def _as_it_is(thing):
    return thing


def _do_nothing(*_args, **_kwargs) -> None:
    return None


def _digit_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split('+')[0].split('.') if part.isdigit())


REAL = {
    'mmengine.registry': {'Registry': Registry},
    'mmengine.model': {'BaseModule': BaseModule},
    'mmengine.utils': {'digit_version': _digit_version},
    'mmengine.fileio': {'register_backend': lambda *_args, **_kwargs: _as_it_is},
    # Nothing is loaded without MMEngine.
    'mmengine.runner.checkpoint': {
        'CheckpointLoader': SimpleNamespace(register_scheme=_do_nothing)
    },
    'mmengine.dist': {'is_distributed': lambda: False},
    'mmengine.logging': {
        'print_log': lambda message, *_args, **_kwargs: print(message)
    },
}


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith('__'):
            raise AttributeError(name)
        if f'{self.__name__}.{name}' in REAL:  # `from mmengine import registry`
            return import_module(f'{self.__name__}.{name}')
        package = self.__name__.partition('.')[0]

        def refuse(*_args, **_kwargs):
            raise ModuleNotFoundError(f'{name} needs {package}: pip install {package}')

        return type(name, (), {'__new__': refuse, '__module__': self.__name__})


class _Finder(MetaPathFinder, Loader):
    def __init__(self, packages: list[str]) -> None:
        self.packages = packages

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in self.packages:
            return ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(REAL.get(module.__name__, {}))
