"""The repetition of a validation that an interruption cut short."""

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

_DONE = 'validated_iter'


class DueValidationHook(Hook):
    """Repeats the validation that was due at the iteration of a resumed checkpoint.

    MMEngine saves before it validates, and a resumed training starts with the next
    iteration: the scores of a killed validation would be missing.
    """

    # The record is made before a CheckpointHook saves the best model.
    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner) -> None:
        """Validate if it is due and not yet done."""
        loop = runner.train_loop
        if not isinstance(loop, IterBasedTrainLoop) or runner.val_loop is None:
            return
        loop._decide_current_val_interval()
        is_due = loop.iter % loop.val_interval == 0 or loop.iter == loop.max_iters
        done = runner.message_hub.runtime_info.get(_DONE)
        if 0 < loop.iter and loop.val_begin <= loop.iter and is_due:
            if done != loop.iter:
                runner.logger.info(
                    f'validation of iteration {loop.iter} is made up for'
                )
                runner.val_loop.run()

    def after_val_epoch(self, runner, metrics=None) -> None:
        """Record the validation."""
        runner.message_hub.update_info(_DONE, runner.iter)
