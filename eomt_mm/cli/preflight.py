"""Checks before a run: are the data there, is the checkpoint whole.

Each costs little and saves the user a traceback from deep inside a framework.
"""

import errno
import os
import tempfile
import zipfile
from copy import deepcopy
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.runner.checkpoint import CheckpointLoader

from eomt_mm import checkpoints
from eomt_mm.errors import UserError

from . import config_reading as reading
from .exit import one_line, rank
from .label_sample import check_label_maps
from .unconverted import refuse_unconverted

# Whose results an evaluator scores.
_SCOPES = dict(
    IoUMetric='mmseg',
    CityscapesMetric='mmseg',
    CocoMetric='mmdet',
    CocoPanopticMetric='mmdet',
)
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
        _check_balance((cfg.get(f'{split}_dataloader') or {}).get('dataset') or {})
        for dataset in reading.leaves_of(cfg, split):
            _check_paths(dataset, split)
            _check_classes(dataset, split, cfg)
            _check_images(dataset, split, reading.scope_of(cfg))
            _check_pipeline(dataset, split, reading.scope_of(cfg))
        for metric in reading.metrics_of(cfg, split):
            for key in ('ann_file', 'seg_prefix'):
                _check_path(metric.get(key), f'{split}_evaluator {key}')
            _check_results(metric, split, cfg)
            _check_listed(metric, split, cfg)


def check_loops(cfg: Config, needed: str) -> None:
    """Check that each split has all that MMEngine's Runner wants, or nothing of it.

    Args:
        cfg: The config.
        needed (str): The split that is run: 'train' or 'test'.

    Raises:
        UserError: Names what is missing.
    """
    for split in ('train', 'val', 'test'):
        _check_loop(cfg, split, split == needed)


def _check_loop(cfg: Config, split: str, is_needed: bool) -> None:
    loop = 'optim_wrapper' if split == 'train' else f'{split}_evaluator'
    keys = (f'{split}_dataloader', f'{split}_cfg', loop)
    missing = [key for key in keys if cfg.get(key) is None]
    if missing and (is_needed or len(missing) < 3):
        raise UserError(
            f'{" and ".join(missing)} of the config is missing or None: set all of '
            f'{", ".join(keys)}{"" if is_needed else ", or none of them"}'
        )
    if split != 'train' and cfg.get(loop) is not None:
        check_evaluator(cfg, split)
    size = (cfg.get(keys[0]) or {}).get('batch_size', 1)
    if not isinstance(size, int) or size < 1:
        raise UserError(
            f'{keys[0]}.batch_size is {size!r}: expected a whole number, at least 1'
        )


def check_evaluator(cfg: Config, split: str) -> None:
    """Check that there is a metric: without one MMEngine ends, and gives no score.

    Args:
        cfg: The config.
        split (str): 'val' or 'test'.

    Raises:
        UserError: There is none, or one is not a dict with a type.
    """
    name, metrics = f'{split}_evaluator', reading.metrics_of(cfg, split)
    if not metrics:
        raise UserError(
            f'{name} has no metric: set one, such as '
            "dict(type='eomt_mm.IoUMetric', iou_metrics=['mIoU']); for predictions "
            'without a score give it format_only=True'
        )
    for metric in metrics:
        if not isinstance(metric, dict) or not metric.get('type'):
            raise UserError(
                f'{name} has the metric {metric!r}: expected a dict with a type, such '
                "as dict(type='eomt_mm.IoUMetric', iou_metrics=['mIoU'])"
            )


def check_output(path: str | Path) -> None:
    """Checks that a file can be written, before what is to be in it is measured.

    Args:
        path: The file. Its folder may be missing, and is not created: nothing is left
            behind where the work fails.

    Raises:
        UserError: Names the file and why.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        folder = next(folder for folder in path.parents if folder.exists())
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror}): choose another place'
        ) from error


def _check_balance(dataset: dict) -> None:
    """ClassBalancedDataset asks what it wraps for the classes of each image."""
    inner = dataset.get('dataset') or {}
    mute = ('ConcatDataset', 'RepeatDataset')
    if (
        reading.type_name(dataset) == 'ClassBalancedDataset'
        and reading.type_name(inner) in mute
    ):
        raise UserError(
            f'ClassBalancedDataset is put around a {reading.type_name(inner)}, which '
            'does not tell the classes of an image: put ClassBalancedDataset '
            'innermost, around each dataset itself'
        )
    for child in (inner, *(dataset.get('datasets') or ())):
        if child:
            _check_balance(child)


def _check_pipeline(dataset: dict, split: str, scope: str | None) -> None:
    """Build each transform once: MM's raise any error for a wrong argument."""
    for place, step in enumerate(dataset.get('pipeline') or []):
        try:
            with TRANSFORMS.switch_scope_and_registry(scope) as registry:
                registry.build(deepcopy(step))  # some build into their argument
        except (TypeError, ValueError, AssertionError, KeyError) as error:
            name = step.get('type', step) if isinstance(step, dict) else step
            raise UserError(
                f'{split}_dataloader: step {place} of the pipeline, {name}, cannot be '
                f'built: {one_line(error) or error or "its arguments do not fit"}'
            ) from error


def _check_paths(dataset: dict, split: str) -> None:
    prefix = dataset.get('data_prefix', {})
    if not isinstance(prefix, dict):
        raise UserError(
            f'{split}_dataloader: data_prefix is {prefix!r}, expected a dict of folders'
        )
    if dataset.get('backend_args'):
        return  # not on a local disk
    root = dataset.get('data_root') or ''
    _check_path(root, f'{split}_dataloader data_root')
    ann_file = dataset.get('ann_file')
    if ann_file:
        _check_path(os.path.join(root, ann_file), f'{split}_dataloader ann_file')
    reads_labels = any(map(reading.loads_labels, dataset.get('pipeline') or []))
    for key, prefix in (dataset.get('data_prefix') or {}).items():
        if prefix and (key.startswith('img') or reads_labels):
            _check_path(
                os.path.join(root, prefix), f'{split}_dataloader data_prefix.{key}'
            )


def _check_images(dataset: dict, split: str, scope: str | None) -> None:
    if not dataset.get('ann_file') and not dataset.get('backend_args'):
        # Only a scan tells: the suffix of the images is the dataset class's affair.
        built = DATASETS.build(
            {
                **dataset,
                'pipeline': [],
                'indices': None,
                'serialize_data': False,
                '_scope_': scope,
            }
        )
        if len(built) == 0:
            folder = built.data_prefix.get('img_path', dataset.get('data_root') or '')
            raise UserError(
                f'no images: the {split} dataset {reading.type_name(dataset)} found no '
                f'file ending in {getattr(built, "img_suffix", "its suffix")!r} under '
                f'{os.path.abspath(folder)}; {_WAY_OUT}'
            )
        if any(map(reading.loads_labels, dataset.get('pipeline') or [])):
            check_label_maps(built, split)


def _check_classes(dataset: dict, split: str, cfg: Config) -> None:
    """The head has as many classes as the dataset, and knows which are things."""
    model, head = cfg.get('model') or {}, reading.head_of(cfg)
    if not model:
        return
    metainfo = reading.metainfo_of(dataset, reading.scope_of(cfg))
    classes = metainfo.get('classes')
    if not classes:
        return
    things = metainfo.get('thing_classes')
    things = len(classes if things is None else things)  # there may be none
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
                f'{reading.type_name(dataset)} has {count} such classes: set {name} of '
                'the head, or classes (and thing_classes) in the metainfo of the '
                'dataset'
            )


def _check_results(metric: dict, split: str, cfg: Config) -> None:
    """The model returns what the evaluator scores: MMDet's raises a `KeyError`."""
    model = cfg.get('model') or {}
    is_on = (model.get('test_cfg') or {}).get('instance_on', False)
    scope, wanted = reading.scope_of(cfg), _SCOPES.get(reading.type_name(metric))
    if wanted and scope in _SCOPES.values() and scope != wanted:
        raise UserError(
            f'the {split}_evaluator is {reading.type_name(metric)}, which scores '
            f"results of {wanted}, and default_scope is '{scope}': set another "
            'evaluator'
        )
    scores_instances = reading.type_name(metric) == 'CocoMetric'
    if scores_instances and 'panoptic_head' in model and not is_on:
        raise UserError(
            f'the {split}_evaluator is CocoMetric, but the model returns no instances: '
            'set model.test_cfg.instance_on=True, or another evaluator'
        )


def _check_listed(metric: dict, split: str, cfg: Config) -> None:
    """The evaluator's file lists the images of the dataset."""
    # Imported here: datasets bring the frameworks, without which other tools run.
    from eomt_mm.datasets import annotation_check

    truth = metric.get('ann_file')
    is_coco = reading.type_name(metric) in ('CocoMetric', 'CocoPanopticMetric')
    if not is_coco or not truth or '://' in truth or not truth.endswith('.json'):
        return
    for dataset in reading.leaves_of(cfg, split):
        path = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file', ''))
        if not path.endswith('.json') or not os.path.isfile(path):
            continue
        if os.path.samefile(path, truth):
            continue
        ids, listed = (
            annotation_check.check_images(
                file, annotation_check.read(file).get('images')
            ).keys()
            for file in (path, truth)
        )
        missing = len(ids - listed)
        if missing:
            raise UserError(
                f'{missing} of {len(ids)} images of the {split} dataset ({path}) are '
                f'not in the ann_file of its evaluator ({truth}): set '
                f'{split}_evaluator.ann_file to the file of the dataset'
            )


def _check_path(path: str | None, what: str) -> None:
    if path and '://' not in path and not os.path.exists(path):
        raise UserError(f'{what} not found: {os.path.abspath(path)}; {_WAY_OUT}')


def check_checkpoint(
    path: str, resume: bool = False, cfg: Config | None = None
) -> dict | None:
    """Checks that a file is a readable checkpoint.

    Args:
        path (str): A file or an address. An address is read here only where a run
            resumes from it; otherwise the loader that reads it later checks it.
        resume (bool): Whether training goes on from it, which needs the state of
            optimiser and schedules beside the weights.
        cfg (Config, optional): Config of a model that is tested or used as it is:
            backbone and head both need weights. A training may start without a head.

    Returns:
        dict: What it holds, its tensors on disk; None for an address, or a folder of
        DeepSpeed, not read here.

    Raises:
        UserError: Not found, not a checkpoint, damaged, with NaN values, without
            training state, or without a part of the model.
    """
    if '://' in path:
        if not resume:
            return None
        content = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        checkpoints.refuse_unresumable(content, path)
        return content
    refuse_unconverted(path)
    if checkpoints.is_deepspeed_folder(path):
        if resume:
            return None
        folder, tag = os.path.split(path.rstrip('/'))
        raise UserError(
            f'{path} is a folder of DeepSpeed, from which a training with its '
            'strategy goes on (--resume); for the weights as a file run '
            f'python {folder or "."}/zero_to_fp32.py {folder or "."} OUT -t {tag}'
        )
    if not os.path.isfile(path):
        raise UserError(f'checkpoint not found: {path}{_other_checkpoints(path)}')
    try:
        if rank() == 0 and zipfile.is_zipfile(path):
            checkpoints.check_sums(path)
        content = checkpoints.read(path, mmap=True)
        weights = checkpoints.weights_of(content, path)
        if resume:
            checkpoints.refuse_unresumable(content, path)
        if cfg:
            _refuse_missing_part(weights, cfg, path)
    except UserError as error:
        raise UserError(f'checkpoint {error}{_other_checkpoints(path)}') from error
    return content


def _refuse_missing_part(weights: dict, cfg: Config, path: str) -> None:
    """Raise a UserError if weights lack the whole backbone, or the whole head."""
    from eomt_mm.models.network import HEADS  # brings all models along

    model = cfg.get('model') or {}
    parts = [name for name in ('backbone', *HEADS) if model.get(name)]
    found = {key.removeprefix('module.').partition('.')[0] for key in weights}
    missing = [name for name in parts if name not in found]
    # Without any of them it is the checkpoint of something else, which loading tells.
    if missing and len(missing) < len(parts):
        raise UserError(
            f'{path} has no weights of {missing[0]}, which would be random: give a '
            'checkpoint of the whole model, or start a training from this one '
            '(load_from)'
        )


def _other_checkpoints(path: str) -> str:
    folder = Path(path) if os.path.isdir(path) else Path(path).parent
    others = [p for p in folder.glob('*.pth') if p != Path(path)]
    others.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    if others:
        return f'; there are: {", ".join(str(p) for p in others[:5])}'
    return '' if folder.is_dir() else f' (no directory {folder})'
