"""The end of a training between two iterations, with a checkpoint, on a signal."""

import os
import signal
from collections.abc import Sequence
from types import FrameType

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook, EMAHook, Hook

_SIGNALS = [
    getattr(signal, name)
    for name in ('SIGINT', 'SIGTERM', 'SIGHUP')
    if hasattr(signal, name)  # no SIGHUP on Windows
]


class InterruptHook(Hook):
    """Holds SIGINT, SIGTERM and SIGHUP back until an iteration is complete.

    An exception that a signal raises anywhere may be lost: Python drops those in the
    callbacks of a fork, C++ turns others into errors of its own. During training the
    signal is therefore only recorded. After the iteration under way, of training or
    validation, a checkpoint is saved and the signal is delivered to the handler that
    was there before. A second signal is delivered at once, so that an iteration that
    hangs can be left.

    The processes of a distributed training agree after each training iteration: all
    stop at the same one as soon as one has a signal. In validation each stops by
    itself, as their numbers of iterations may differ.

    Training by epochs resumes at the start of an epoch, so no checkpoint is saved in
    the middle of one.

    Args:
        delivered (Sequence[int]): Signals whose exception has been raised, and maybe
            lost, before training began. The first iteration is then the last.
    """

    # It follows everything else that belongs to the iteration.
    priority = 'LOWEST'

    def __init__(self, delivered: Sequence[int] = ()) -> None:
        self.delivered = delivered
        self.pending: int | None = None
        self._before: dict = {}
        self._owner = os.getpid()
        self._is_between = False

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Hold back signals from the first iteration on."""
        if self.delivered:
            raise KeyboardInterrupt
        self._is_between = False
        if self._before:
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):  # neither ignored nor left to the system
                self._before[number] = handler
                signal.signal(number, self._hold)

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """Stop if there is a signal."""
        number = torch.tensor(self.pending or 0)
        all_reduce(number, 'max')
        if not number:
            self._is_between = True
            return
        self.pending = int(number)
        self._save(runner, runner.iter + 1)
        self.end()

    def before_val(self, runner) -> None:
        """Disallow checkpoints: other hooks may change the model for the validation."""
        self._is_between = False

    def after_val(self, runner) -> None:
        """Allow checkpoints: the model is that of the training again."""
        self._is_between = True

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Stop if there is a signal; the resumed run repeats the validation."""
        if self.pending is None:
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):  # has put its averages into the model
                hook.after_val_epoch(runner)
        self._save(runner, runner.iter)
        self.end()

    def after_train(self, runner) -> None:
        """Deliver a signal that came too late to stop anything."""
        self.end()

    def save_between(self, runner) -> None:
        """Save a checkpoint if an error followed a signal between two iterations.

        Data workers receive the signal too and end before they deliver the next batch.
        """
        if self.pending is not None and self._is_between:
            self._save(runner, runner.iter)

    def end(self) -> None:
        """Restore the handlers, and deliver a pending signal.

        Raises:
            KeyboardInterrupt: From the handler of the signal.
        """
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self.pending is not None:
            number, self.pending = self.pending, None
            signal.raise_signal(number)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner or self.pending is not None:
            self.pending = number
            self.end()
            return
        self.pending = number
        # Data workers get the signal too. Their death must not raise an error in the
        # middle of the iteration.
        if hasattr(signal, 'SIGCHLD'):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _save(self, runner, iteration: int) -> None:
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and not hook.by_epoch:
                meta = dict(epoch=runner.epoch, iter=iteration)
                hook._save_checkpoint_with_step(runner, iteration, meta)
