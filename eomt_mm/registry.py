"""Child registries of MMEngine's, scope `eomt_mm`.

A config keeps `default_scope='mmseg'` or `'mmdet'` and writes
`type='eomt_mm.QueryViT'`. The `locations` are imported at the first lookup, so a
user needs no import of their own. The bridge to a framework is listed only where
that framework is installed: the core works without either.
"""

from importlib.util import find_spec

from mmengine import registry as root
from mmengine.registry import Registry

_MODEL_LOCATIONS = ['eomt_mm.models']
if find_spec('mmseg'):
    _MODEL_LOCATIONS.append('eomt_mm.models.segmentor')

MODELS = Registry('model', parent=root.MODELS, locations=_MODEL_LOCATIONS)
HOOKS = Registry('hook', parent=root.HOOKS, locations=['eomt_mm.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    locations=['eomt_mm.engine'],
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler',
    parent=root.PARAM_SCHEDULERS,
    locations=['eomt_mm.engine'],
)
DATASETS = Registry('dataset', parent=root.DATASETS, locations=['eomt_mm.datasets'])
TRANSFORMS = Registry(
    'transform', parent=root.TRANSFORMS, locations=['eomt_mm.datasets']
)
