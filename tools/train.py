"""Train any config of this package, MMSegmentation's or MMDetection's way.

python tools/train.py configs/eomt/eomt_vitl_ade20k.py --amp
python tools/train.py CONFIG --resume              # continue where it stopped
python tools/train.py CONFIG --cfg-options data_root=/data/ade
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import errno
import os
import shlex
import sys
import time
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.engine import (
    DueValidationHook,
    InterruptHook,
    ResumeCheckHook,
    latest_checkpoint,
)
from eomt_mm.errors import UserError
from eomt_mm.files import sole_user


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; the flags are MMSegmentation's and MMDetection's."""
    parser = argparse.ArgumentParser(description='Train a model')
    cli.add_common_options(parser)
    cli.add_launch_options(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a value from the latest one in the '
        'work directory, and from the start if it has none',
    )
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision (accelerators)'
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile the blocks of the backbone: meant for long runs, takes a minute '
        'or more at the start',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by batch size / auto_scale_lr.base_batch_size',
    )
    return cli.parse_args(parser, argv)


def main(argv: list[str] | None = None) -> Runner:
    """Train.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        Runner: The runner after training.

    Raises:
        UserError: If the command, the config or the data are wrong.
        KeyboardInterrupt: Explains how to resume.
    """
    args = parse_args(argv)
    cfg = cli.load_config(args)
    cli.check_strategy(cfg)
    cli.join(cfg)
    check_length(cfg)
    cli.check_loops(cfg, 'train')
    set_precision(cfg, args.amp)
    fuse_optimizer(cfg)
    if args.compile:
        hook = dict(type='eomt_mm.CompileHook')
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]
    auto_scale_lr = args.auto_scale_lr or scales_itself(cfg)
    if auto_scale_lr:
        check_scaling(cfg)
    cli.check_data(cfg, 'train', 'val')

    command = resume_command(sys.argv[1:] if argv is None else argv, args.resume)
    started = time.time()
    lock = sole_user(Path(cfg.work_dir)) if cli.rank() == 0 else nullcontext()
    with lock, cli.noted_interrupts() as interrupts:
        set_start(cfg, args.resume)
        stop, runner = InterruptHook(interrupts), None
        try:
            runner = (
                RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
            )
            if isinstance(runner, FlexibleRunner) and cfg.get('load_from'):
                cli.leave_pretrained(runner)
            if auto_scale_lr:
                scale_learning_rate(runner)
            for split in ('train', 'val'):
                cli.build_loader(runner, split)
            # The last hooks of all: what they save and validate is complete.
            runner.register_hook(ResumeCheckHook())
            runner.register_hook(DueValidationHook())
            runner.register_hook(stop)
            runner.train()
        except BaseException as error:
            if runner is not None:
                stop.save_between(runner)
            with suppress(KeyboardInterrupt):  # `interrupts` has it
                stop.end()
            full = getattr(error, 'errno', None) in (errno.ENOSPC, errno.EDQUOT)
            if not interrupts and not full:
                raise
            remove_half_written(cfg.work_dir)
            go_on = way_on(cfg, command, started)
            if interrupts:
                raise KeyboardInterrupt(f'interrupted; {go_on}') from None
            raise UserError(
                f'no space left on the disk of {cfg.work_dir}: free some; {go_on}'
            ) from error
    return runner


def check_length(cfg: Config) -> None:
    """Check that the training has an end, which schedules need."""
    train_cfg = cfg.get('train_cfg') or {}
    if not train_cfg.get('max_iters') and not train_cfg.get('max_epochs'):
        raise UserError(
            'the config sets no train_cfg.max_iters; add it, or pass '
            '--cfg-options train_cfg.max_iters=40000'
        )


def set_precision(cfg: Config, amp: bool) -> None:
    """Switch to `AmpOptimWrapper` if there is an accelerator."""
    wrapper = cfg.optim_wrapper
    kind = reading.type_name(wrapper.get('type', 'OptimWrapper'))
    if amp and kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UserError(
            f'--amp replaces OptimWrapper, but optim_wrapper.type is {kind}: '
            'leave --amp out and set the precision in the config'
        )
    if get_device() in ('cpu', 'mps') and (amp or kind == 'AmpOptimWrapper'):
        asked = '--amp' if amp else 'optim_wrapper.type=AmpOptimWrapper'
        raise UserError(
            f'{asked} needs an accelerator, and the device is {get_device()}: '
            'train in full precision (no --amp, type OptimWrapper) or on a GPU'
        )
    if amp:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')


def fuse_optimizer(cfg: Config) -> None:
    """Takes PyTorch's fused optimizer, one launch for many parameters, on CUDA."""
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    kind = reading.type_name(optimizer.get('type', ''))
    unset = not {'fused', 'foreach'} & set(optimizer)
    if get_device() == 'cuda' and kind in ('Adam', 'AdamW', 'SGD') and unset:
        optimizer.fused = True


def scales_itself(cfg: Config) -> bool:
    """Whether the config asks for a scaled learning rate without the flag."""
    return bool((cfg.get('auto_scale_lr') or {}).get('enable'))


def check_scaling(cfg: Config) -> None:
    """Check that linear scaling has a learning rate and its base batch size."""
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise UserError(
            '--auto-scale-lr needs the batch size the learning rate was chosen for: '
            'set auto_scale_lr=dict(base_batch_size=16) in the config'
        )
    if 'lr' not in cfg.optim_wrapper.get('optimizer', {}):
        raise UserError(
            '--auto-scale-lr scales optim_wrapper.optimizer.lr, which the config does '
            'not set'
        )


def scale_learning_rate(runner: Runner) -> None:
    """Scale the learning rate by batch size / base batch size.

    MMEngine scales the parameter groups once the optimizer is built, and leaves its
    `base_lr` unscaled. Here the scaling precedes the optimizer.
    """
    is_flexible = isinstance(runner, FlexibleRunner)
    scaling = runner._auto_scale_lr if is_flexible else runner.auto_scale_lr
    base = scaling['base_batch_size']
    real = runner.world_size * runner.cfg.train_dataloader.batch_size
    optimizer = runner.optim_wrapper['optimizer']
    lr = optimizer['lr'] * real / base
    runner.logger.info(
        f'learning rate {optimizer["lr"]:g} is for {base} images in a batch; with '
        f'{real} it is {lr:g}'
    )
    optimizer['lr'] = lr
    # Not once more.
    if is_flexible:
        runner.strategy._auto_scale_lr = None
    else:
        runner.auto_scale_lr = None


def set_start(cfg: Config, resume: str | None) -> None:
    """Decide where training starts.

    A bare `--resume` continues from the latest checkpoint in the work directory.
    Without one, the run starts as without the flag, from the config's `load_from` if it
    has one. MMEngine itself would resume from `load_from`, the checkpoint of another
    training.

    Args:
        cfg: Changed in place.
        resume (str, optional): None, 'auto' or a checkpoint.
    """
    if resume == 'auto':
        newest = find_newest(cfg.work_dir)
        cfg.resume = newest is not None
        if cfg.resume:
            cfg.load_from = newest
        elif cli.rank() == 0:
            start = (
                f'from load_from={cfg.load_from}' if cfg.get('load_from') else 'anew'
            )
            print_log(f'nothing to resume in {cfg.work_dir}: training starts {start}')
    elif resume is not None:
        cfg.resume, cfg.load_from = True, resume
    elif cfg.get('resume') and cfg.get('load_from') is None:
        # Given here, so that MMEngine does not look for another one.
        cfg.load_from = find_newest(cfg.work_dir)
    if cfg.get('load_from') is not None:
        resumes = bool(cfg.get('resume'))
        content = cli.check_checkpoint(cfg.load_from, resume=resumes)
        cli.check_resumed_kind(cfg)
        if resumes and content is not None:
            refuse_beyond_end(cfg, content['meta'])


def refuse_beyond_end(cfg: Config, meta: Mapping) -> None:
    """Refuse a checkpoint from after the end, which leaves nothing to train.

    MMEngine would skip as many batches as the checkpoint has seen, and train on none.
    """
    for unit, end in (('iter', 'max_iters'), ('epoch', 'max_epochs')):
        last = cfg.train_cfg.get(end)
        if last and meta[unit] > last:
            raise UserError(
                f'{cfg.load_from} is from {unit} {meta[unit]:,}, after the end of '
                f'this run, train_cfg.{end}={last}: raise that, or test the checkpoint'
            )


def find_newest(work_dir: str) -> str | None:
    """Find and log the newest whole checkpoint of a work directory."""
    path, passed_over = latest_checkpoint(work_dir)
    if cli.rank() == 0:
        if passed_over:
            print_log(f'passed over in {work_dir}: {"; ".join(passed_over)}')
        if path is not None:
            print_log(f'going on from {path}, the newest whole checkpoint')
    return path


def resume_command(argv: list[str], resume: str | None) -> str:
    """Return the command that continues: the same one with a bare `--resume`."""
    words = [w for w in argv if not w.startswith('--resume=')]
    if '--resume' in words:
        at = words.index('--resume')
        del words[at : at + (2 if words[at + 1 : at + 2] == [resume] else 1)]
    return shlex.join(['python', sys.argv[0], *words, '--resume'])


def way_on(cfg: Config, command: str, started: float) -> str:
    """Return the advice after an interrupted run."""
    record = os.path.join(cfg.work_dir, 'last_checkpoint')
    # One that is older than this run belongs to another, unless this one resumed it.
    if not os.path.isfile(record) or (
        os.path.getmtime(record) < started and not cfg.get('resume')
    ):
        return 'no checkpoint was written yet: start it again'
    if cfg.launcher != 'none':
        return 'resume with the same command plus --resume'
    return f'resume with: {command}'


def remove_half_written(work_dir: str) -> None:
    """Remove checkpoints whose writing was cut short.

    Rank 0 wrote them, and it alone knows that nobody is still writing.
    """
    if cli.rank() != 0:
        return
    for path in Path(work_dir).glob('*.pth'):
        with path.open('rb') as file:
            started = file.read(2) in (b'PK', b'')
        if started and not zipfile.is_zipfile(path):
            path.unlink(missing_ok=True)


if __name__ == '__main__':
    sys.exit(cli.run(main))
