"""The end of a training that has diverged."""

import math

from mmengine.hooks import Hook

from eomt_mm.engine.latest_checkpoint import latest_checkpoint
from eomt_mm.errors import UserError
from eomt_mm.registry import HOOKS


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Stops training whose loss is NaN or infinite for many iterations in a row.

    Iterations that AMP's loss scaler skips do not count, as long as its scale is above
    1 and falls: a smaller scale may be the cure.

    The losses are read where MMEngine's RuntimeInfoHook has put them as plain numbers,
    so the hook costs no synchronisation with the accelerator.

    Args:
        patience (int, optional): Iterations in a row. None switches the hook off.
            Defaults to 20.

    Raises:
        UserError: From `after_train_iter`; names the iteration, the losses and the last
            good checkpoint. In a distributed training each process stops by itself:
            gradients are averaged, so that the loss of all is NaN one iteration later.
    """

    def __init__(self, patience: int | None = 20) -> None:
        if patience is not None and patience < 1:
            raise UserError(
                f'patience={patience} of eomt_mm.DivergenceHook: expected 1 or more, '
                'or None to switch it off'
            )
        self.patience = patience
        self.count = 0
        self._scale = math.inf

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """Count iterations without a finite loss, and stop."""
        if self.patience is None or not outputs:
            return
        hub = runner.message_hub
        losses = {
            name: hub.get_scalar(f'train/{name}').current()
            for name in outputs
            if 'loss' in name
        }
        bad = {name: x for name, x in losses.items() if not math.isfinite(x)}
        if not bad:
            self.count, self._scale = 0, math.inf
        elif not self._is_skipped(runner):
            self.count += 1
        if self.count < self.patience:
            return
        terms = ', '.join(f'{name}={x}' for name, x in bad.items() if name != 'loss')
        path, _ = latest_checkpoint(runner.work_dir)
        good = f'the last good checkpoint is {path}' if path else 'there is no good one'
        raise UserError(
            f'training has diverged: for {self.patience} iterations in a row, up to '
            f'iteration {runner.iter + 1}, the loss is not a finite number '
            f'({terms or "loss"}); {good}. Lower optim_wrapper.optimizer.lr or check '
            'the data'
        )

    def _is_skipped(self, runner) -> bool:
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if scaler is None:
            return False
        before, self._scale = self._scale, scaler.get_scale()
        return 1 < self._scale < before
