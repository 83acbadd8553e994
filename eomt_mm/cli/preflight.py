"""Checks before a run: are the data there, is the checkpoint whole.

Each costs little and saves the user a traceback from deep inside a framework.
"""

import errno
import os
import tempfile
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.runner.checkpoint import CheckpointLoader

from eomt_mm import checkpoints
from eomt_mm.errors import UserError

from .exit import one_line, rank
from .unconverted import refuse_unconverted

_WAY_OUT = 'point the config at your data with --cfg-options data_root=DIR'


def check_data(cfg: Config, *splits: str) -> None:
    """Checks that directories and annotation files exist and hold images.

    Args:
        cfg: The config.
        splits (str): 'train', 'val' or 'test'. A split without loader is passed over.

    Raises:
        UserError: Names the missing path and the option that mends it.
    """
    for split in splits:
        if cfg.get(f'{split}_dataloader'):
            for dataset in _leaves(cfg[f'{split}_dataloader']['dataset']):
                _check_dataset(dataset, split, cfg.get('default_scope'))
                _check_pipeline(dataset, split, cfg.get('default_scope'))
                _check_classes(dataset, split, cfg)
        evaluators = cfg.get(f'{split}_evaluator') or []
        for metric in [evaluators] if isinstance(evaluators, dict) else evaluators:
            for key in ('ann_file', 'seg_prefix'):
                _check_path(metric.get(key), f'{split}_evaluator {key}')
            _check_results(metric, split, cfg)


def check_output(path: str | Path) -> None:
    """Checks that a file can be written, before what is to be in it is measured.

    Args:
        path: The file. Its folder is created.

    Raises:
        UserError: Names the file and why.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror}): choose another place'
        ) from error


def _leaves(dataset: dict) -> Iterator[dict]:
    """The datasets inside wrappers such as ConcatDataset and RepeatDataset."""
    if 'datasets' in dataset:
        for child in dataset['datasets']:
            yield from _leaves(child)
    elif 'dataset' in dataset:
        yield from _leaves(dataset['dataset'])
    else:
        yield dataset


def _check_pipeline(dataset: dict, split: str, scope: str | None) -> None:
    """Build each transform once: MM's raise any error for a wrong argument."""
    for place, step in enumerate(dataset.get('pipeline') or []):
        try:
            with TRANSFORMS.switch_scope_and_registry(scope) as registry:
                registry.build(deepcopy(step))  # some build into their argument
        except ImportError:
            continue  # panopticapi: its stand-in comes with the detector
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            name = step.get('type', step) if isinstance(step, dict) else step
            raise UserError(
                f'{split}_dataloader: step {place} of the pipeline, {name}, cannot be '
                f'built: {one_line(error) or error or "its arguments do not fit"}'
            ) from error


def _check_dataset(dataset: dict, split: str, scope: str | None) -> None:
    if dataset.get('backend_args'):
        return  # not on a local disk
    root = dataset.get('data_root') or ''
    _check_path(root, f'{split}_dataloader data_root')
    ann_file = dataset.get('ann_file')
    if ann_file:
        _check_path(os.path.join(root, ann_file), f'{split}_dataloader ann_file')
    reads_labels = any(
        'Annotations' in str(step.get('type')) for step in dataset.get('pipeline', [])
    )
    for key, prefix in (dataset.get('data_prefix') or {}).items():
        if prefix and (key.startswith('img') or reads_labels):
            _check_path(
                os.path.join(root, prefix), f'{split}_dataloader data_prefix.{key}'
            )
    if not ann_file:
        # Only a scan tells: the suffix of the images is the dataset class's affair.
        built = DATASETS.build(
            {**dataset, 'pipeline': [], 'serialize_data': False, '_scope_': scope}
        )
        if len(built) == 0:
            folder = built.data_prefix.get('img_path', root)
            raise UserError(
                f'no images: the {split} dataset {dataset["type"]} found no file '
                f'ending in {getattr(built, "img_suffix", "its suffix")!r} under '
                f'{os.path.abspath(folder)}; {_WAY_OUT}'
            )


def _check_classes(dataset: dict, split: str, cfg: Config) -> None:
    """The head has as many classes as the dataset, and knows which are things."""
    scope, model = cfg.get('default_scope'), cfg.get('model') or {}
    head = model.get('decode_head') or model.get('panoptic_head') or {}
    with DATASETS.switch_scope_and_registry(scope) as registry:
        found = registry.get(dataset['type'])
    metainfo = {**getattr(found, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    classes = metainfo.get('classes')
    if not classes:
        return
    things = len(metainfo.get('thing_classes') or classes)
    expected = dict(
        num_classes=len(classes),
        num_things_classes=things,
        num_stuff_classes=len(classes) - things,
    )
    if not (model.get('test_cfg') or {}).get('panoptic_on', True):
        del expected['num_stuff_classes']  # not asked for
    for name, count in expected.items():
        if name in head and head[name] != count:
            raise UserError(
                f'the head has {name}={head[name]}, but the {split} dataset '
                f'{dataset["type"]} has {count} such classes: set {name} of the head, '
                'or classes (and thing_classes) in the metainfo of the dataset'
            )


def _check_results(metric: dict, split: str, cfg: Config) -> None:
    """The model returns what the evaluator scores: MMDet's raises a `KeyError`."""
    model = cfg.get('model') or {}
    is_on = (model.get('test_cfg') or {}).get('instance_on', False)
    scores_instances = str(metric.get('type')).rpartition('.')[2] == 'CocoMetric'
    if scores_instances and 'panoptic_head' in model and not is_on:
        raise UserError(
            f'the {split}_evaluator is CocoMetric, but the model returns no instances: '
            'set model.test_cfg.instance_on=True, or another evaluator'
        )


def _check_path(path: str | None, what: str) -> None:
    if path and '://' not in path and not os.path.exists(path):
        raise UserError(f'{what} not found: {os.path.abspath(path)}; {_WAY_OUT}')


def check_checkpoint(path: str, resume: bool = False) -> dict | None:
    """Checks that a file is a readable checkpoint.

    Args:
        path (str): A file or an address. An address is read here only where a run
            resumes from it; otherwise the loader that reads it later checks it.
        resume (bool): Whether training goes on from it, which needs the state of
            optimiser and schedules beside the weights.

    Returns:
        dict: What it holds, its tensors on disk; None for an address not read here.

    Raises:
        UserError: Not found, not a checkpoint, damaged, with NaN values, or without
            training state.
    """
    if '://' in path:
        if not resume:
            return None
        content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        checkpoints.refuse_unresumable(content, path)
        return content
    refuse_unconverted(path)
    if not os.path.isfile(path):
        raise UserError(f'checkpoint not found: {path}{_other_checkpoints(path)}')
    try:
        if rank() == 0 and zipfile.is_zipfile(path):
            checkpoints.check_sums(path)
        content = checkpoints.read(path, mmap=True)
        checkpoints.weights_of(content, path)
        if resume:
            checkpoints.refuse_unresumable(content, path)
    except UserError as error:
        raise UserError(f'checkpoint {error}{_other_checkpoints(path)}') from error
    return content


def _other_checkpoints(path: str) -> str:
    folder = Path(path) if os.path.isdir(path) else Path(path).parent
    others = [p for p in folder.glob('*.pth') if p != Path(path)]
    others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    if others:
        return f'; there are: {", ".join(str(p) for p in others[:5])}'
    return '' if folder.is_dir() else f' (no directory {folder})'
