"""Mask annealing: masked attention is phased out while the model trains.

Each of the last blocks is masked with a probability that falls from 1 to 0 inside
that block's window of iterations, first block first. What is left at the end is a
plain ViT (arXiv 2503.19108, section 3.3).
"""

import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction

from mmengine.hooks import Hook
from mmengine.logging import print_log

from eomt_mm.errors import UserError
from eomt_mm.models.network import head_of
from eomt_mm.registry import HOOKS

from .wrapped import unwrapped

# The published schedules, as fractions of the training: every window is a sixth
# long, the first starts after a sixth and the last ends a sixth before the end.
WINDOW = Fraction(1, 6)
FIRST_START = Fraction(1, 6)
LAST_START = Fraction(4, 6)


def annealing_windows(
    num_blocks: int,
    max_iters: int,
    start: str | Sequence[int | float] = 'auto',
    end: str | Sequence[int | float] = 'auto',
    first_block: Sequence[int | float] | None = None,
) -> list[tuple[int, int]]:
    """Compute the iterations between which each masked block is annealed.

    Args:
        num_blocks: Number of masked blocks (the paper's L2).
        max_iters: Length of the training in iterations.
        start: 'auto' for the rule behind the published schedules, or one value per
            block. An int is an iteration, a float a fraction of `max_iters`: `1` is
            the second iteration, `1.0` the end of the training.
        end: Likewise; the iteration from which the block is no longer masked.
        first_block: (start, end) that replaces the first block's window, as the
            DINOv3 models' (0, 3000) does.

    Returns:
        One (start, end) pair per block, rounded half up. In a training of a few
        iterations both may round to the same one.

    Raises:
        UserError: If there is a wrong number of values, a fraction outside [0, 1], or
            a window that does not increase.
    """
    starts = _positions('start', start, num_blocks, max_iters, FIRST_START, LAST_START)
    ends = _positions(
        'end', end, num_blocks, max_iters, FIRST_START + WINDOW, LAST_START + WINDOW
    )
    if first_block is not None:
        if len(first_block) != 2:
            raise UserError(
                f'first_block={first_block} of the mask annealing: expected '
                '(start, end), for example (0, 3000)'
            )
        starts[0] = _position('first_block', first_block[0], max_iters)
        ends[0] = _position('first_block', first_block[1], max_iters)

    # Checked before rounding, so that a trial run of a few iterations is legal.
    windows = list(zip(starts, ends, strict=True))
    shown = ', '.join(f'{float(s):g}..{float(e):g}' for s, e in windows)
    if any(s >= e for s, e in windows):
        raise UserError(
            f'mask annealing windows [{shown}] of {max_iters} iterations: every '
            'window must end after it starts; change `start`, `end` or `first_block`'
        )
    if any(
        s1 <= s0 or e1 <= e0
        for (s0, e0), (s1, e1) in zip(windows, windows[1:], strict=False)
    ):
        raise UserError(
            f'mask annealing windows [{shown}] of {max_iters} iterations do not '
            'increase from block to block; change `start`, `end` or `first_block`'
        )
    return [(_round_half_up(s), _round_half_up(e)) for s, e in windows]


def mask_probability(step: int, start: int, end: int, power: float = 0.9) -> float:
    """Return the probability that a query of a block is masked at iteration `step`.

    1 before `start`, 0 from `end` on, `(1 - progress) ** power` in between.
    """
    if step < start:
        return 1.0
    if step >= end:
        return 0.0
    return (1 - (step - start) / (end - start)) ** power


def _positions(
    name: str,
    values: str | Sequence[int | float],
    num_blocks: int,
    max_iters: int,
    first: Fraction,
    last: Fraction,
) -> list[Fraction]:
    if values == 'auto':
        if num_blocks == 1:
            return [last * max_iters]
        step = (last - first) / (num_blocks - 1)
        return [(first + i * step) * max_iters for i in range(num_blocks)]
    if isinstance(values, str) or len(values) != num_blocks:
        raise UserError(
            f"{name}={values!r} of the mask annealing: expected 'auto' or one value "
            f'for each of the {num_blocks} masked blocks'
        )
    return [_position(name, value, max_iters) for value in values]


def _position(name: str, value: int | float, max_iters: int) -> Fraction:
    if isinstance(value, int):
        if value < 0:
            raise UserError(f'{name} of the mask annealing is {value}: expected >= 0')
        return Fraction(value)
    if not 0 <= value <= 1:
        raise UserError(
            f'{name} of the mask annealing is {value}: a float is a fraction of the '
            'training in [0, 1]; write an int for an iteration'
        )
    # Through the decimal form, so that 0.3 means 3/10 and not its binary neighbour.
    return Fraction(str(value)) * max_iters


def _round_half_up(value: Fraction) -> int:
    # round() would turn 25868.5 into the even 25868; the published giant has 25869.
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


@HOOKS.register_module()
class MaskAnnealingHook(Hook):
    """Sets and logs the mask probability of every block before each iteration.

    Writes the list `mask_probs` of plain floats, one per masked block, of the backbone
    (`QueryViT`) or of the head (`Mask2FormerHead`, whose blocks are the layers of its
    decoder), whichever the unwrapped model has. The hook keeps no state: the values
    follow from the iteration and `max_iters` alone, hence a resumed run continues
    where it was.

    Args:
        start: See :func:`annealing_windows`.
        end: See :func:`annealing_windows`.
        first_block: See :func:`annealing_windows`.
        power: Exponent of the decay.
    """

    def __init__(
        self,
        start: str | Sequence[int | float] = 'auto',
        end: str | Sequence[int | float] = 'auto',
        first_block: Sequence[int | float] | None = None,
        power: float = 0.9,
    ) -> None:
        self.start = start
        self.end = end
        self.first_block = first_block
        self.power = power
        self._loaded_iter: int | None = None
        self._loaded_epoch: int | None = None

    def probabilities(self, step: int, max_iters: int, num_blocks: int) -> list[float]:
        """Return the mask probability of each block at iteration `step`."""
        return [
            mask_probability(step, start, end, self.power)
            for start, end in self.windows(num_blocks, max_iters)
        ]

    def windows(self, num_blocks: int, max_iters: int) -> list[tuple[int, int]]:
        """Return this schedule's windows, see :func:`annealing_windows`."""
        return annealing_windows(
            num_blocks, max_iters, self.start, self.end, self.first_block
        )

    def end_of(self, runner) -> int:
        """The iteration from which nothing is masked in the run that begins."""
        count = len(_masked_part(runner).mask_probs)
        return max((e for _, e in self.windows(count, runner.max_iters)), default=0)

    def before_train(self, runner) -> None:
        """Refuse a schedule that cannot work, before any data is loaded."""
        self._loaded_iter = None
        part = _masked_part(runner)
        blocks = len(part.mask_probs)
        self.windows(blocks, runner.max_iters)
        if runner.iter:
            # A resumed training may begin with a validation, which masks as the last
            # iteration did.
            part.mask_probs = self.probabilities(
                runner.iter - 1, runner.max_iters, blocks
            )

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Set the probabilities of this iteration."""
        part = _masked_part(runner)
        # Under gradient accumulation `iter` and `max_iters` both count batches, so
        # the fractions hold; only absolute iterations would have to be multiplied.
        part.mask_probs = self.probabilities(
            runner.iter, runner.max_iters, len(part.mask_probs)
        )
        for block, probability in enumerate(part.mask_probs):
            runner.message_hub.update_scalar(f'train/mask_prob_{block}', probability)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Record the iteration of the loaded weights, for `before_test`."""
        meta = checkpoint.get('meta', {})
        self._loaded_iter, self._loaded_epoch = meta.get('iter'), meta.get('epoch')

    def before_test(self, runner) -> None:
        """Warn when the weights have never seen attention without masks."""
        message = self.unfinished(
            runner.cfg.get('train_cfg') or {},
            len(_masked_part(runner).mask_probs),
            self._loaded_iter,
            self._loaded_epoch,
        )
        if message:
            print_log(message, logger='current', level=logging.WARNING)

    def unfinished(
        self,
        train_cfg: Mapping,
        num_blocks: int,
        iteration: int | None,
        epoch: int | None = None,
    ) -> str | None:
        """Tell whether weights are from before the end of the annealing.

        Args:
            train_cfg: Of the config, with `max_iters` or `max_epochs`.
            num_blocks: Number of masked blocks.
            iteration: Iterations that the weights were trained for, if known.
            epoch: The same in epochs.

        Returns:
            What to say of them, or None if they are finished or nothing is known.
        """
        max_iters, epochs = train_cfg.get('max_iters'), train_cfg.get('max_epochs')
        if epochs and epoch and iteration:
            max_iters = epochs * iteration // epoch
        if iteration is None or max_iters is None:
            return None
        end = max((end for _, end in self.windows(num_blocks, max_iters)), default=0)
        if iteration >= end:
            return None
        return (
            f'This checkpoint is from iteration {iteration}, when blocks were still '
            'trained with masked attention. Inference is unmasked: results are '
            f'meaningful only once the annealing ends, at iteration {end} of '
            f'{max_iters}.'
        )


def annealing_hook(cfg: Mapping) -> MaskAnnealingHook | None:
    """Build the hook of a config that anneals, whichever kind it is.

    Args:
        cfg (Mapping): The config of a training.

    Returns:
        MaskAnnealingHook: None if the config has none.
    """
    for hook in cfg.get('custom_hooks') or []:
        kind = hook['type']
        kind = kind if isinstance(kind, type) else HOOKS.get(kind)
        if kind is not None and issubclass(kind, MaskAnnealingHook):
            return HOOKS.build(hook)
    return None


def unfinished_annealing(
    cfg: Mapping, num_blocks: int, meta: Mapping | None
) -> str | None:
    """Tell whether a config's annealing ends after the weights of a checkpoint.

    Args:
        cfg (Mapping): The config of a training.
        num_blocks (int): Number of masked blocks.
        meta (Mapping, optional): `meta` of the checkpoint.

    Returns:
        str: What to say of them; None if they are finished or nothing is known.
    """
    meta, hook = meta or {}, annealing_hook(cfg)
    return hook and hook.unfinished(
        cfg.get('train_cfg') or {}, num_blocks, meta.get('iter'), meta.get('epoch')
    )


def _masked_part(runner):
    """Return the part of the model whose attention is masked."""
    model = unwrapped(runner.model)
    # The head first: a backbone without queries has probabilities of no use.
    for part in (head_of(model), getattr(model, 'backbone', None)):
        if getattr(part, 'mask_probs', None) is None:
            continue
        if not getattr(part, 'deep_supervision', True):
            raise UserError(
                f'deep_supervision of {type(part).__name__} is False, so that nothing '
                'is ever masked: remove MaskAnnealingHook from custom_hooks'
            )
        return part
    raise UserError(
        'MaskAnnealingHook needs a model whose backbone or head has `mask_probs`, and '
        f"{type(model).__name__} has none: use the backbone 'eomt_mm.QueryViT' or the "
        "head 'eomt_mm.Mask2FormerHead', or remove the hook from custom_hooks"
    )
