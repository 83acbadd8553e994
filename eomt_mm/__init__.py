"""EoMT, a plain ViT that segments, native in OpenMMLab (arXiv 2503.19108)."""

import warnings
from importlib import metadata
from importlib.util import find_spec

from .pixel_limit import apply_limit
from .version import __version__

# Major and minor versions this package was run with. Others may well work.
TESTED = {
    'mmengine': '0.10',
    'mmcv': '2.1',
    'mmdet': '3.3',
    'mmsegmentation': '1.2',
    'torch': '2.11',
    'timm': '1.0',
}


def _warn_of_untested_versions() -> None:
    untested = []
    for package, tested in TESTED.items():
        try:
            installed = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # the frameworks are optional
        if installed.split('.')[:2] != tested.split('.'):
            untested.append(f'{package} {installed} (tested: {tested})')
    if untested:
        warnings.warn(
            f'eomt_mm was not tested with {", ".join(untested)}', stacklevel=3
        )


_warn_of_untested_versions()
apply_limit()
if find_spec('mmengine'):  # where it is absent, `eomt_mm.deploy` still runs
    from . import file_backend  # noqa: F401 - registers `atomic_local`
    from .checkpoints import schemes
    from .evaluation import provide_panopticapi

    schemes.register()
    provide_panopticapi()  # a stock panoptic config imports no more than this

__all__ = ['TESTED', '__version__']
