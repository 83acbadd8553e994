"""A check that a resumed checkpoint belongs to the run."""

import difflib
from itertools import islice

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from eomt_mm.checkpoints import config_of, refuse_other_optimizer

# Differs between a run and its resumption by itself.
_OF_THE_CALL = ('load_from', 'resume', 'work_dir', 'launcher')
_SHOWN = 5


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
        if isinstance(wrapper, OptimWrapper) and 'param_groups' in (state or {}):
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


def changed_lines(before: str, after: str) -> list[str]:
    """List the first lines in which two configs differ, as `- old` and `+ new`.

    Args:
        before (str): Text of the config in a checkpoint, compared as text.
        after (str): Text of the config of this run.
    """
    texts = [
        [line for line in text.splitlines() if not line.startswith(_OF_THE_CALL)]
        for text in (before[: len(after) * 2 + 1000], after)
    ]
    changes = (
        f'{line[0]} {line[1:].strip()[:80]}'
        for line in difflib.unified_diff(*texts, n=0, lineterm='')
        if not line.startswith(('---', '+++', '@@'))
    )
    return list(islice(changes, _SHOWN))
