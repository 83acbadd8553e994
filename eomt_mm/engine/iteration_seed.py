"""Random numbers of a training step that depend on the iteration alone."""

import random

import numpy as np
import torch
from mmengine.hooks import Hook

from eomt_mm.registry import HOOKS


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Makes a resumed run draw what the uninterrupted one would have drawn.

    Point sampling and mask annealing draw random numbers in every training step, and
    a checkpoint does not hold the generators' states. This hook seeds them from
    (seed, rank, iteration) before the step and hands the previous CPU states back
    after it, so that the data pipeline, which draws in this process when
    `num_workers=0`, has a stream of its own. Validation is isolated likewise.

    Only with `randomness=dict(seed=...)` in the config is a resumed run equal bit for
    bit: MMEngine does restore the first run's seed from the checkpoint, but after the
    sampler and the data workers were seeded.

    Args:
        seed: Seed; the Runner's by default.
    """

    # Hooks run in order of priority, alike before and after a step. The last place is
    # the one next to the step: nothing draws between the seeding and the step, and
    # whatever the hooks after the step draw (logging, checkpoints, pictures) leaves
    # no trace in the data stream.
    priority = 'LOWEST'

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed
        self._states: tuple | None = None

    def before_train(self, runner) -> None:
        """Start the data stream at the seed, whatever was drawn during set-up."""
        seed_everything(*self._identity(runner))

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Seed the step."""
        self._enter(runner)

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ) -> None:
        """Give the data stream its generators back."""
        self._leave()

    def before_val(self, runner) -> None:
        """Seed the validation."""
        self._enter(runner)

    def after_val(self, runner) -> None:
        """Give the data stream its generators back."""
        self._leave()

    def _identity(self, runner) -> tuple[int, int]:
        # Asked anew each time: the Runner's seed changes when it resumes.
        return (runner.seed if self.seed is None else self.seed, runner.rank)

    def _enter(self, runner) -> None:
        self._states = (
            random.getstate(),
            np.random.get_state(),
            torch.get_rng_state(),
        )
        seed_everything(*self._identity(runner), runner.iter)

    def _leave(self) -> None:
        python, numpy, cpu = self._states
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


def seed_everything(*entropy: int) -> None:
    """Seed Python, numpy, torch and its accelerators from a mix of integers.

    Args:
        entropy: Non-negative integers; (1, 2) and (2, 1) give unrelated streams.
    """
    # The length is mixed in as well: numpy pads with zeros, (1, 2) equals (1, 2, 0).
    sequence = np.random.SeedSequence((len(entropy), *entropy))
    python, numpy, cpu = (int(word) for word in sequence.generate_state(3))
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(cpu)
