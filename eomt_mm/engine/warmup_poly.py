"""Two-stage warm-up: first the new parameters, then the pretrained backbone."""

import logging

from mmengine.logging import print_log
from mmengine.optim import _ParamScheduler

from eomt_mm.errors import UserError
from eomt_mm.registry import PARAM_SCHEDULERS


def two_stage_factor(
    step: int,
    total: int,
    warmup: tuple[int, int],
    power: float,
    is_backbone: bool,
) -> float:
    """Return the learning rate factor of optimizer step `step`, counted from 0.

    The head warms up linearly over the first `warmup[0]` steps, during which the
    backbone stays at 0; the backbone warms up over the next `warmup[1]`. Each then
    decays polynomially over the steps that remain to it, and is 0 from `total` on.

    The backbone waits at a rate of 0 and keeps `requires_grad`: Adam's moments and the
    gradient norm see it from the first step, as in the paper's training.
    """
    begin = warmup[0] if is_backbone else 0
    length = warmup[1] if is_backbone else warmup[0]
    if step < begin:
        return 0.0
    if step < begin + length:
        return (step - begin) / length
    if step >= total:
        return 0.0
    return (1 - (step - begin - length) / (total - begin - length)) ** power


def warmup_lengths(
    warmup: tuple[int | float, int | float], total: int
) -> tuple[int, int]:
    """Return the lengths of the two stages in iterations.

    Args:
        warmup: Iterations as whole numbers, or fractions of the run below 1.
        total: Iterations of the run. Where the warm-up would not end within it, both
            stages are scaled so that it takes half of the run, and this is logged.

    Raises:
        UserError: A stage is negative, or neither whole nor a fraction.
    """
    lengths = []
    for stage in warmup:
        is_fraction = isinstance(stage, float) and not stage.is_integer()
        if stage < 0 or (is_fraction and stage > 1):
            raise UserError(
                f'TwoStageWarmupPolyLR: warmup={tuple(warmup)}; give two numbers of '
                'iterations, or two fractions of the run such as (0.01, 0.02)'
            )
        lengths.append(round(stage * total) if is_fraction else int(stage))
    if total > sum(lengths):
        return tuple(lengths)
    scaled = tuple(length * total // (2 * sum(lengths)) for length in lengths)
    print_log(
        f'training has {total} iterations, too few for a warm-up of {lengths[0]} + '
        f'{lengths[1]}: it is scaled to {scaled[0]} + {scaled[1]}; set `warmup` in '
        'param_scheduler for other lengths',
        logger='current',
        level=logging.WARNING,
    )
    return scaled


@PARAM_SCHEDULERS.register_module()
class TwoStageWarmupPolyLR(_ParamScheduler):
    """Two-stage warm-up and polynomial decay, in closed form.

    Parameter groups tagged `is_backbone` follow the backbone's curve, all others,
    MMEngine's appended group of defaults included, the head's. The state is the step
    and the base rates: the schedule itself always comes from the config, so that a
    run can be resumed with another `max_iters`.

    Args:
        optimizer: Optimizer wrapper.
        warmup: Lengths of the two stages in iterations, or as fractions of the run
            such as (0.01, 0.02); see :func:`warmup_lengths`. Under gradient
            accumulation an optimizer step takes several, and MMEngine counts
            iterations.
        power: Exponent of the decay.
        end: Steps in total. The Runner fills in `train_cfg.max_iters`.
        by_epoch: Must be False; the default is MMEngine's.
        last_step: Index of the last step taken, -1 for a new run.
        verbose: Print every value.

    Raises:
        UserError: `by_epoch` is not False, or `end` is None.
    """

    def __init__(
        self,
        optimizer,
        warmup: tuple[int | float, int | float] = (500, 1000),
        power: float = 0.9,
        end: int | None = None,
        by_epoch: bool = True,
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        # The Runner fills in epochs as `end` where it does not see by_epoch=False.
        if by_epoch:
            raise UserError(
                'TwoStageWarmupPolyLR counts iterations: write by_epoch=False in '
                'param_scheduler'
            )
        if end is None:
            raise UserError(
                'TwoStageWarmupPolyLR has end=None: leave `end` out, the Runner fills '
                'in train_cfg.max_iters, or give the number of iterations'
            )
        self.warmup = warmup_lengths(warmup, end)
        self.total = end
        self.power = power
        super().__init__(
            optimizer, 'lr', last_step=last_step, by_epoch=False, verbose=verbose
        )

    def _get_value(self) -> list[float]:
        return [
            base
            * two_stage_factor(
                self.last_step,
                self.total,
                self.warmup,
                self.power,
                group.get('is_backbone', False),
            )
            for base, group in zip(
                self.base_values, self.optimizer.param_groups, strict=True
            )
        ]

    def state_dict(self) -> dict:
        """Return the step reached and the base learning rates."""
        keys = ('last_step', '_global_step', '_last_value', 'base_values')
        return {key: getattr(self, key) for key in keys}

    def load_state_dict(self, state_dict: dict) -> None:
        """Continue at the saved step, with the rates of this schedule."""
        super().load_state_dict(state_dict)
        # The optimizer's own state brought the rates of the schedule it was saved
        # under, which may have had another length.
        self._last_value = self._get_value()
        for group, value in zip(
            self.optimizer.param_groups, self._last_value, strict=True
        ):
            group['lr'] = value
