"""EoMT, a plain ViT that segments, native in OpenMMLab (arXiv 2503.19108)."""

import warnings
from importlib.util import find_spec

from .compat import TESTED, untested_versions
from .pixel_limit import apply_limit
from .version import __version__

_untested = untested_versions()
if _untested:
    warnings.warn(f'eomt_mm was not tested with {", ".join(_untested)}', stacklevel=2)
apply_limit()
if find_spec('mmengine'):  # where it is absent, `eomt_mm.deploy` still runs
    from . import file_backend  # noqa: F401 - registers `atomic_local`
    from .checkpoints import schemes
    from .evaluation import provide_panopticapi

    schemes.register()
    provide_panopticapi()  # a stock panoptic config imports no more than this

__all__ = ['TESTED', '__version__']
