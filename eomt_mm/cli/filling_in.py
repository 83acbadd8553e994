"""What a config leaves open, and what it says that does not go together."""

import logging

from mmengine.config import Config, ConfigDict
from mmengine.device import is_cuda_available
from mmengine.logging import print_log

from eomt_mm.palettes import is_palette, palette_of

from . import config_reading as reading
from .exit import rank

_SPLITS = ('train', 'val', 'test')
_STOCK_PAINTERS = ('SegVisualizationHook', 'DetVisualizationHook')
_WITHOUT_WORKERS = dict(
    persistent_workers=False,
    prefetch_factor=None,
    timeout=0,
    multiprocessing_context=None,
)
_REPEATING = ('RepeatDataset', 'ClassBalancedDataset')


def fill_in(cfg: Config) -> None:
    """Make a config whole that each of its parts allows, and say so.

    Args:
        cfg: Changed in place.

    Raises:
        UserError: The classes of a dataset cannot be read.
    """
    for split in _SPLITS:
        loader = cfg.get(f'{split}_dataloader') or {}
        if not loader.get('num_workers'):
            # PyTorch refuses what has no effect.
            loader.update({k: v for k, v in _WITHOUT_WORKERS.items() if k in loader})
        if loader.get('batch_sampler') and loader.get('drop_last'):
            # It makes the batches, and PyTorch refuses another word on them.
            loader['batch_sampler'].setdefault('drop_last', loader.pop('drop_last'))
        if loader and is_cuda_available():
            loader.setdefault('pin_memory', True)  # copies beside the network's work
        if split != 'train' and loader.get('dataset'):
            loader['dataset'] = _once(loader['dataset'], split)
        for dataset in reading.leaves_of(cfg, split):
            _give_colours(dataset, cfg)
    if counts_epochs(cfg):
        _follow_epochs(cfg)
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    if hook.get('draw') and reading.type_name(hook) in _STOCK_PAINTERS:
        cfg.default_hooks.visualization = painter(hook)


def painter(hook: dict) -> ConfigDict:
    """Return the hook that paints as one of MM's does, on the photos as loaded.

    Args:
        hook: `SegVisualizationHook` or `DetVisualizationHook`, as a config has it.
    """
    given = {k: hook[k] for k in ('interval', 'show', 'wait_time') if k in hook}
    if 'score_thr' in hook:
        given['drawing'] = dict(pred_score_thr=hook['score_thr'])
    elif 'drawing' in hook:
        given['drawing'] = hook['drawing']
    return ConfigDict(type='eomt_mm.PaintHook', **given)


def counts_epochs(cfg: Config) -> bool:
    """Whether the training loop ends after a number of epochs."""
    train_cfg = cfg.get('train_cfg') or {}
    if 'type' in train_cfg:
        return reading.type_name(train_cfg) == 'EpochBasedTrainLoop'
    return bool(train_cfg.get('by_epoch') or train_cfg.get('max_epochs'))


def _once(dataset: dict, split: str) -> dict:
    """Drop the repetition of a dataset: a score counts each image once."""
    if 'datasets' in dataset:
        dataset['datasets'] = [_once(child, split) for child in dataset['datasets']]
    while reading.type_name(dataset) in _REPEATING:
        _say(
            f'{split}_dataloader: each image is tested once, {dataset["type"]} would '
            'count some several times'
        )
        dataset = _once(dataset['dataset'], split)
    return dataset


def _give_colours(dataset: dict, cfg: Config) -> None:
    scope = reading.scope_of(cfg)
    if scope not in ('mmseg', 'mmdet') or 'type' not in dataset:
        return
    found = reading.metainfo_of(dataset, scope)
    if not found.get('classes'):
        return
    published = getattr(reading.dataset_class(dataset, scope), 'METAINFO', {})
    colours = palette_of(found, published)
    given = found.get('palette')
    if not is_palette(given) or [*map(tuple, given)] != colours:
        dataset['metainfo'] = {**(dataset.get('metainfo') or {}), 'palette': colours}


def _follow_epochs(cfg: Config) -> None:
    """Let sampler, checkpoints and log count epochs where the training loop does.

    The schedules need nothing: they take the length in iterations from the loop.
    """
    # A length in iterations that was inherited or overridden.
    cfg.train_cfg.pop('max_iters', None)
    changed = []
    loader = cfg.get('train_dataloader') or {}
    sampler = loader.get('sampler') or {}
    if reading.type_name(sampler) == 'InfiniteSampler':
        # With it no epoch ever ends.
        loader['sampler'] = dict(
            type='DefaultSampler', shuffle=sampler.get('shuffle', True)
        )
        changed.append('the sampler is DefaultSampler')
    hooks = cfg.get('default_hooks') or {}
    checkpoint = hooks.get('checkpoint')
    if checkpoint and not checkpoint.get('by_epoch', True):
        # A training by epochs goes on at the start of one.
        interval = cfg.train_cfg.get('val_interval', 1)
        checkpoint.update(by_epoch=True, interval=interval)
        changed.append(f'a checkpoint is saved every {interval} epochs')
    if hooks.get('logger'):
        hooks['logger']['log_metric_by_epoch'] = True
    if cfg.get('log_processor'):
        cfg.log_processor['by_epoch'] = True
    if changed:
        _say(f'train_cfg counts epochs: {"; ".join(changed)}')


def _say(message: str) -> None:
    if rank() == 0:
        print_log(message, level=logging.WARNING)
