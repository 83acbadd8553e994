"""A stand-in for `panopticapi`, which is on no package index.

MMDetection asks for five of its names and goes without panoptic data and evaluation
where it does not find them.
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
    """Let `panopticapi` be found, in this process and in those forked from it.

    The real package is used where it is installed. MMDetection may have been imported
    before: what it missed is filled in. Calling this again does nothing.
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
