"""Strategies of a config, checked before anything is built."""

import os
from importlib.util import find_spec

from mmengine.config import Config
from mmengine.registry import RUNNERS, STRATEGIES
from mmengine.runner import FlexibleRunner

from eomt_mm.errors import UserError

from . import config_reading as reading

# Of MMEngine, and of this package, which knows the recipe.
_SHARING = ('FSDPStrategy', 'DeepSpeedStrategy')


def check_strategy(cfg: Config) -> None:
    """Check the runner and the strategy of a training.

    Args:
        cfg (Config): With `launcher`.

    Raises:
        UserError: The strategy cannot work, or would train another recipe.
    """
    strategy = cfg.get('strategy')
    is_flexible = _is_flexible(cfg)
    if strategy is None and not is_flexible:
        return
    if not is_flexible:
        raise UserError(
            'the config has a strategy, which FlexibleRunner alone reads: add '
            'runner_type=FlexibleRunner'
        )
    kind = (strategy or {}).get('type')
    if kind is None:
        raise UserError(
            'runner_type is FlexibleRunner, and strategy.type is missing: write '
            'strategy.type=eomt_mm.FSDPStrategy, or leave runner_type out'
        )
    name = reading.type_name(kind)
    if isinstance(kind, str) and STRATEGIES.get(kind) is None:
        raise UserError(
            f'strategy.type={kind} is not known: expected eomt_mm.FSDPStrategy or '
            'eomt_mm.DeepSpeedStrategy'
        )
    if name not in _SHARING:
        return
    if kind == name:
        raise UserError(
            f'strategy.type={kind} is that of MMEngine, which neither clips gradients '
            f'nor resumes as the recipe needs: write eomt_mm.{kind}'
        )
    if cfg.launcher == 'none':
        raise UserError(
            f'strategy {kind} shares a model among processes, and there is no '
            'launcher: start with tools/dist_train.sh CONFIG GPUS'
        )
    if name == 'DeepSpeedStrategy' and find_spec('deepspeed') is None:
        raise UserError(
            f'strategy {kind} needs DeepSpeed, which is not installed: pip install '
            '"deepspeed<0.17", or take eomt_mm.FSDPStrategy'
        )
    hooks = [
        *(cfg.get('default_hooks') or {}).values(),
        *(cfg.get('custom_hooks') or []),
    ]
    if any(reading.type_name(hook) == 'EMAHook' for hook in hooks):
        raise UserError(
            f'EMAHook copies the whole model, which strategy {kind} splits: leave one '
            'of them out'
        )


def check_resumed_kind(cfg: Config) -> None:
    """Check that a resumed checkpoint is a folder with DeepSpeed, a file without.

    Raises:
        UserError: It is the other.
    """
    path, kind = cfg.load_from, (cfg.get('strategy') or {}).get('type', '')
    wants_folder = reading.type_name(kind) == 'DeepSpeedStrategy'
    if not cfg.get('resume') or '://' in path or os.path.isdir(path) == wants_folder:
        return
    if wants_folder:
        raise UserError(
            f'{path} is not a folder of DeepSpeed, which its strategy goes on from: '
            'resume without the strategy, or start from the weights with '
            f'--cfg-options load_from={path}'
        )
    raise UserError(
        f'{path} is a folder, as DeepSpeed writes: resume with the strategy '
        'eomt_mm.DeepSpeedStrategy'
    )


def forgo_strategy(cfg: Config) -> None:
    """Test with MMEngine's ordinary Runner: a prediction has no state to share."""
    if _is_flexible(cfg):
        cfg.pop('runner_type')
        cfg.pop('strategy', None)


def leave_pretrained(runner: FlexibleRunner) -> None:
    """Leave out pre-trained weights that a checkpoint replaces.

    An ordinary Runner asks FineTuningHook first, FlexibleRunner initialises before.
    """
    backbone = runner.model.get('backbone') or {}
    if reading.type_name(backbone.get('type', '')) in ('QueryViT', 'PlainViT'):
        backbone['pretrained'] = False


def _is_flexible(cfg: Config) -> bool:
    kind = cfg.get('runner_type')
    return isinstance(kind, str) and RUNNERS.get(kind) is FlexibleRunner
