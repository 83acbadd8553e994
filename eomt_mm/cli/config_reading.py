"""What a config says, however it is written.

A type is a name (`'mmseg.PackSegInputs'`) or, in MMEngine's Python style, the class. A
loader has one dataset, or wrappers around several, each with a pipeline of its own.
"""

from collections.abc import Iterator, Sequence
from copy import copy

from mmengine.config import Config
from mmengine.registry import DATASETS

from eomt_mm.errors import UserError
from eomt_mm.palettes import palette_of

_SCOPES = {'PackSegInputs': 'mmseg', 'PackDetInputs': 'mmdet'}
# Loaders of this package do without labels, and bring 16-bit images to 8 bits.
_LABELS_OPTIONAL = (
    'LoadSemanticAnnotations',
    'LoadPanopticAnnotations',
    'LoadInstanceAnnotations',
)


def type_name(node: object) -> str:
    """Return the class that a config names, without package or scope.

    Args:
        node: A dict with `type`, a name or a class.
    """
    kind = node.get('type') if isinstance(node, dict) else node
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return name.rpartition('.')[2]


def leaves(dataset: dict) -> Iterator[dict]:
    """Return the datasets inside wrappers such as ConcatDataset and RepeatDataset."""
    if 'datasets' in dataset:
        for child in dataset['datasets']:
            yield from leaves(child)
    elif 'dataset' in dataset:
        yield from leaves(dataset['dataset'])
    else:
        yield dataset


def leaves_of(cfg: Config, split: str) -> list[dict]:
    """Return the datasets of a split: train, val or test; none without its loader."""
    loader = cfg.get(f'{split}_dataloader') or {}
    return list(leaves(loader['dataset'])) if loader.get('dataset') else []


def metrics_of(cfg: Config, split: str) -> list[dict]:
    """Return the evaluators of a split."""
    found = cfg.get(f'{split}_evaluator') or []
    # An Evaluator may be spelt out.
    metrics = []
    for node in _listed(found):
        inner = node.get('metrics', node) if isinstance(node, dict) else node
        metrics += _listed(inner)
    return metrics


def _listed(node: object) -> list:
    return list(node) if isinstance(node, (list, tuple)) else [node]


def pipeline_of(cfg: Config, split: str = 'test') -> list[dict]:
    """Return the pipeline of a split, the first where its datasets have several.

    Raises:
        UserError: There is none.
    """
    for dataset in leaves_of(cfg, split):
        if dataset.get('pipeline'):
            return list(dataset['pipeline'])
    raise UserError(
        f'the config has no {split}_dataloader whose dataset has a pipeline: add one'
    )


def with_pipeline(dataset: dict, pipeline: list[dict]) -> dict:
    """Copy a dataset, or wrappers, with another pipeline in its leaves."""
    changed = copy(dataset)
    if 'datasets' in dataset:
        changed['datasets'] = [with_pipeline(d, pipeline) for d in dataset['datasets']]
    elif 'dataset' in dataset:
        changed['dataset'] = with_pipeline(dataset['dataset'], pipeline)
    else:
        changed['pipeline'] = pipeline
    return changed


def loads_labels(step: object) -> bool:
    """Whether a step of a pipeline loads annotations."""
    return 'Annotations' in type_name(step)


def without_labels(pipeline: Sequence[dict]) -> list[dict]:
    """Return the steps that a photo without annotations can go through."""
    return [
        step
        for step in pipeline
        if type_name(step) in _LABELS_OPTIONAL
        or not loads_labels(step)
        and type_name(step) != 'CheckLabelSize'
    ]


def refuse_bands(cfg: Config, tool: str) -> None:
    """Refuse a config of other bands than red, green and blue.

    Args:
        cfg (Config): The config.
        tool (str): What shows photographs alone, for the message.

    Raises:
        UserError: If the test pipeline loads bands.
    """
    if any(type_name(step) == 'LoadMultiBandImage' for step in pipeline_of(cfg)):
        raise UserError(
            f'{tool} takes photographs (RGB), and the config images of chosen bands '
            '(eomt_mm.LoadMultiBandImage): tools/test.py --show-dir paints what such '
            'a model predicts'
        )


def head_of(cfg: Config) -> dict:
    """Return the head of the model; empty where it has none that is known here."""
    model = cfg.get('model') or {}
    return model.get('decode_head') or model.get('panoptic_head') or {}


def scope_of(cfg: Config) -> str | None:
    """Return `default_scope`; if unset, as in Python style, that of the packer."""
    if cfg.get('default_scope'):
        return cfg['default_scope']
    for split in ('test', 'val', 'train'):
        for dataset in leaves_of(cfg, split):
            for step in dataset.get('pipeline') or []:
                if type_name(step) in _SCOPES:
                    return _SCOPES[type_name(step)]
    return None


def dataset_class(dataset: dict, scope: str | None) -> type:
    """Return the class of a dataset.

    Raises:
        UserError: Nothing is registered under this name.
    """
    if isinstance(dataset.get('type'), type):
        return dataset['type']
    with DATASETS.switch_scope_and_registry(scope) as registry:
        found = registry.get(str(dataset.get('type')))
    if found is None:
        raise UserError(
            f'there is no dataset {dataset.get("type")}: look for a misspelling, or '
            'add its module to custom_imports'
        )
    return found


def metainfo_of(dataset: dict, scope: str | None) -> dict:
    """Return classes, palette and the like, of class and config, with files read.

    Raises:
        UserError: `classes` is a text and no file: a comma was forgotten, or the file
            is not there.
    """
    found = dataset_class(dataset, scope)
    given = dataset.get('metainfo')
    if given is not None and not isinstance(given, dict):
        raise UserError(
            f'metainfo is {given!r}: expected dict(classes=(...)) with the names'
        )
    if not hasattr(found, '_load_metainfo'):  # not MMEngine's base class
        return dict(given or {})
    metainfo = found._load_metainfo(given)
    for name in ('classes', 'thing_classes', 'stuff_classes'):
        if isinstance(metainfo.get(name), str):
            value = metainfo[name]
            raise UserError(
                f'metainfo.{name} is the text {value!r}: expected a list of names or a '
                f'file with one name a line, and there is no such file. A single class '
                f'needs a comma: ({value!r},)'
            )
    _check_names(metainfo.get('classes'), given or {})
    return metainfo


def _check_names(classes: Sequence[str] | None, given: dict) -> None:
    """Check names of classes that a config gives."""
    if 'classes' not in given:
        return
    source = f'metainfo.classes={given["classes"]!r}'
    if not classes or not isinstance(classes, Sequence):
        raise UserError(f'{source} has no names: expected one for each class')
    odd = [name for name in classes if not isinstance(name, str) or not name.strip()]
    if odd:
        raise UserError(
            f'{source} has the name {odd[0]!r}: expected texts, and no empty lines in '
            'a file of names'
        )
    twice = [name for name in classes if list(classes).count(name) > 1]
    if twice:
        raise UserError(f'{source} has {twice[0]!r} twice: give each class its own')


def classes_and_colours(
    cfg: Config, num_classes: int
) -> tuple[list[str], list[list[int]]]:
    """Return the classes of the test dataset and a colour, RGB, for each.

    Args:
        cfg (Config): The config.
        num_classes (int): Classes of the model's head.

    Raises:
        UserError: The config has no test dataset, or one with other classes.
    """
    scope = scope_of(cfg)
    for dataset in leaves_of(cfg, 'test'):
        meta = metainfo_of(dataset, scope)
        published = dataset_class(dataset, scope).METAINFO
        classes = list(meta.get('classes') or ())
        if len(classes) == num_classes:
            palette = palette_of(meta, published)
            return classes, [[int(c) for c in colour] for colour in palette]
        raise UserError(
            f'the head has {num_classes} classes, but the test dataset has '
            f'{len(classes)}: set classes in the metainfo of test_dataloader.dataset'
        )
    raise UserError('the config has no test_dataloader with a dataset: add one')
