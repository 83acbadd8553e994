"""Averaged weights, begun where no block is masked any more."""

import logging

from mmengine.hooks import EMAHook as MMEngineEMAHook
from mmengine.logging import print_log

from eomt_mm.registry import HOOKS

from .mask_annealing import MaskAnnealingHook

SHARE = 10  # the average reaches back over a tenth of the iterations it has


@HOOKS.register_module()
class EMAHook(MMEngineEMAHook):
    """MMEngine's hook, aware of mask annealing.

    Weights from before the end of the annealing belong to another network, one whose
    attention is masked: averaged into the last ones, they are of no use. Until then
    the average is the model itself, so that validation sees what is trained.
    Checkpoints hold the average as their `state_dict`, and test without this hook.

    Args:
        begin_iter (int, optional): First iteration that is averaged. None is the end of
            the annealing, or 0 without a `MaskAnnealingHook`. Defaults to None.
        momentum (float, optional): Share of the newest weights. None makes it 10 by the
            number of iterations from `begin_iter` to the end. Defaults to None.
        **kwargs: Those of MMEngine's `EMAHook`.
    """

    def __init__(
        self, begin_iter: int | None = None, momentum: float | None = None, **kwargs
    ) -> None:
        # MMEngine warns of large momenta at once; a placeholder until the length
        # of the run is known.
        super().__init__(
            begin_iter=begin_iter or 0, momentum=momentum or 1e-4, **kwargs
        )
        self._settled = begin_iter is not None, momentum is not None

    def before_train(self, runner) -> None:
        """Settle where the average begins and how far it reaches back."""
        has_begin, has_momentum = self._settled
        if not has_begin:
            self.begin_iter = end_of_annealing(runner)
        if not has_momentum:
            left = max(1, runner.max_iters - self.begin_iter)
            self.ema_model.momentum = min(0.5, SHARE / left)
        super().before_train(runner)
        runner.logger.info(
            f'weights are averaged from iteration {self.begin_iter} on, '
            f'momentum {self.ema_model.momentum:g}'
        )

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take over the average, or say that there is none."""
        if 'ema_state_dict' in checkpoint or not runner._resume:
            super().after_load_checkpoint(runner, checkpoint)
            return
        print_log(
            f'the checkpoint of iteration {checkpoint.get("meta", {}).get("iter")} was '
            'saved without EMA: the average begins anew from its weights',
            logger='current',
            level=logging.WARNING,
        )
        self.ema_model.module.load_state_dict(checkpoint['state_dict'])


def end_of_annealing(runner) -> int:
    """The iteration from which no block is masked; 0 without annealing.

    Args:
        runner (Runner): MMEngine's, before training.
    """
    for hook in runner.hooks:
        if isinstance(hook, MaskAnnealingHook):
            return hook.end_of(runner)
    return 0
