"""Child registries of MMEngine's, scope `eomt_mm`.

A config keeps `default_scope='mmseg'` or `'mmdet'` and writes
`type='eomt_mm.QueryViT'`. The `locations` are imported at the first lookup, so a
user needs no import of their own. The bridge to a framework is listed only where
that framework is installed: the core works without either.
"""

from importlib.machinery import PathFinder
from importlib.util import find_spec

from mmengine import registry as root
from mmengine.registry import Registry


def has_mmdet() -> bool:
    """Whether MMDetection and the compiled operators of mmcv are installed.

    Neither is imported to find out.
    """
    mmcv = find_spec('mmcv')
    if mmcv is None or find_spec('mmdet') is None:
        return False
    operators = PathFinder.find_spec('mmcv._ext', mmcv.submodule_search_locations)
    return operators is not None


_MODEL_LOCATIONS = ['eomt_mm.models']
_METRIC_LOCATIONS = ['eomt_mm.evaluation.ood']
_VISUALIZER_LOCATIONS = []
if find_spec('mmseg'):
    _MODEL_LOCATIONS.append('eomt_mm.models.segmentor')
    _METRIC_LOCATIONS.append('eomt_mm.evaluation.iou')
if has_mmdet():
    _MODEL_LOCATIONS += [
        'eomt_mm.models.detector',
        'eomt_mm.models.det_tta',
        'eomt_mm.models.fusion_head',
        'eomt_mm.models.baselines',
    ]
    if find_spec('mmseg'):
        _MODEL_LOCATIONS.append('eomt_mm.models.baselines.segmentor')
    _METRIC_LOCATIONS += [
        'eomt_mm.evaluation.coco_panoptic',
        'eomt_mm.evaluation.coco_instances',
        'eomt_mm.evaluation.dump_results',
    ]
    _VISUALIZER_LOCATIONS.append('eomt_mm.det_visualizer')

MODELS = Registry('model', parent=root.MODELS, locations=_MODEL_LOCATIONS)
METRICS = Registry('metric', parent=root.METRICS, locations=_METRIC_LOCATIONS)
HOOKS = Registry(
    'hook',
    parent=root.HOOKS,
    # The second imports the models, which `import eomt_mm` alone must not.
    locations=[
        'eomt_mm.engine',
        'eomt_mm.engine.fine_tuning',
        'eomt_mm.engine.label_map_hook',
        'eomt_mm.engine.paint_hook',
    ],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    locations=['eomt_mm.engine'],
)
STRATEGIES = Registry(
    'strategy', parent=root.STRATEGIES, locations=['eomt_mm.engine.strategies']
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
VISUALIZERS = Registry(
    'visualizer', parent=root.VISUALIZERS, locations=_VISUALIZER_LOCATIONS
)


def class_of(config: dict) -> object:
    """Look up what the `type` of a part of a model's config names, without building it.

    Args:
        config (dict): Config with a `type`: a name, or the class itself.

    Returns:
        object: A class or function; None if nothing has this name.
    """
    kind = config['type']
    if not isinstance(kind, str):
        return kind
    # Scope None keeps that of the run: a name without prefix means what it means when
    # the model is built.
    with MODELS.switch_scope_and_registry(None) as registry:
        return registry.get(kind)
