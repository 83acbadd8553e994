"""Processes of a launcher: how they meet, with or without a GPU, and part."""

import gc
from datetime import timedelta

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.utils.dl_utils import set_multi_processing

from eomt_mm.checkpoints import changed_lines
from eomt_mm.errors import UserError

# Seconds that a collective waits for a process that is silent but not known dead.
PATIENCE = 1800


def join(cfg: Config) -> None:
    """Let the processes of `cfg.launcher` meet, before the Runner is built.

    MMEngine's own way needs a GPU. Without one they meet through gloo, and the model
    is wrapped for the CPU.

    Args:
        cfg (Config): With `launcher`; its `model_wrapper_cfg` is filled in on a CPU.

    Raises:
        UserError: They cannot meet, or their configs differ.
    """
    if cfg.launcher == 'none' or dist.is_distributed():
        return
    env = cfg.get('env_cfg', {})
    options = dict(env.get('dist_cfg', {}))
    options.setdefault('timeout', PATIENCE)
    # MMEngine sets the start method of data workers first, and so must this.
    set_multi_processing(**env.get('mp_cfg', {}), distributed=True)
    if get_device() == 'cpu':
        _join_on_cpu(cfg, options['timeout'])
    else:
        init_dist(cfg.launcher, **options)
    _compare(cfg)


def part() -> None:
    """End the process group and its threads, after the work and before Python ends.

    A thread of gloo that lets go of a tensor while Python ends is stopped in the midst
    of it, and C++ aborts: a whole training would be reported as a crash.
    """
    if dist.is_distributed():
        gc.collect()  # a model wrapper in a cycle holds the group, and so its threads
        torch.distributed.destroy_process_group()


def _join_on_cpu(cfg: Config, timeout: float) -> None:
    if cfg.launcher != 'pytorch':
        raise UserError(
            f'--launcher {cfg.launcher} needs GPUs, and there is none: on CPUs use '
            'tools/dist_train.sh, or torchrun with --launcher pytorch'
        )
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        raise UserError(
            'several processes need a GPU or gloo, and this PyTorch has neither: '
            'install a build with gloo, or train in one process without --launcher'
        )
    torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=timeout))
    # MMEngine would name a GPU for the model.
    cfg.setdefault(
        'model_wrapper_cfg', dict(type='MMDistributedDataParallel', device_ids=None)
    )


def _compare(cfg: Config) -> None:
    """Refuse to train one model from several configs."""
    texts = dist.all_gather_object(cfg.pretty_text)
    for other, text in enumerate(texts):
        lines = changed_lines(texts[0], text)
        if lines:
            raise UserError(
                f'processes 0 and {other} have different configs: {"; ".join(lines)}: '
                'start all with the same files and options'
            )
