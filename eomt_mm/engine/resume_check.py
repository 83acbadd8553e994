"""A check that a resumed checkpoint belongs to the run."""

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from eomt_mm.checkpoints import changed_lines, config_of, refuse_other_optimizer

from .wrapped import is_sharded


class ResumeCheckHook(Hook):
    """Compares a resumed checkpoint with the run: its optimizer, its config's text.

    Raises:
        UserError: If the optimizer's state does not fit the parameters.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuse another optimizer's state; report another config."""
        if not runner._resume:
            return
        wrapper, state = runner.optim_wrapper, checkpoint.get('optimizer')
        # Shares have other shapes; FSDP compares them with the whole itself.
        compares = isinstance(wrapper, OptimWrapper) and not is_sharded(runner.model)
        if compares and 'param_groups' in (state or {}):
            # The wrapper's own groups have one more, MMEngine's `base_lr`.
            parameters = [group['params'] for group in wrapper.optimizer.param_groups]
            refuse_other_optimizer(state, parameters, runner._load_from)
        text = config_of(checkpoint)
        if text:
            lines = changed_lines(text, runner.cfg.pretty_text)
            if lines:
                runner.logger.warning(
                    'the config is not the one that the checkpoint was written with: '
                    + '; '.join(lines)
                )
