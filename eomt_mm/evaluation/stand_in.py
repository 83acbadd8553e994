"""A stand-in for `panopticapi`, which no package index carries.

MMDetection imports five of its names, and has no panoptic data and evaluation without
them.
"""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec

from . import panoptic_quality

NAMES = {
    'panopticapi.evaluation': ('OFFSET', 'VOID', 'PQStat'),
    'panopticapi.utils': ('id2rgb', 'rgb2id'),
}
# They look for the names once, when they are imported.
USERS = (
    'mmdet.evaluation.functional.panoptic_utils',
    'mmdet.evaluation.metrics.coco_panoptic_metric',
    'mmdet.apis.det_inferencer',
)


def provide_panopticapi() -> None:
    """Provide `panopticapi` in this process and in those forked from it.

    The real package has precedence if it is installed. Names that MMDetection missed in
    an earlier import are filled in. Further calls do nothing.
    """
    if find_spec('panopticapi'):
        return
    package = _new_module('panopticapi')
    found = {'panopticapi': package}
    for module_name, names in NAMES.items():
        module = _new_module(module_name)
        setattr(package, module_name.rpartition('.')[2], module)
        for name in names:
            found[name] = getattr(panoptic_quality, name)
            setattr(module, name, found[name])
    for user in USERS:
        if user in sys.modules:
            missed = vars(sys.modules[user])
            missed.update({name: found[name] for name in found.keys() & missed.keys()})


def _new_module(name: str):
    module = module_from_spec(ModuleSpec(name, None, is_package='.' not in name))
    module.__doc__ = 'A stand-in of eomt_mm for the missing panopticapi.'
    sys.modules[name] = module
    return module
