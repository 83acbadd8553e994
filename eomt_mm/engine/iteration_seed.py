"""Random numbers of a training step that depend on the iteration alone."""

import random

import numpy as np
import torch
from mmengine.hooks import Hook

from eomt_mm.registry import HOOKS

from .data_stream import mixed_seeds, number_samples


@HOOKS.register_module()
class IterationSeedHook(Hook):
    """Makes a resumed run draw what the uninterrupted one would have drawn.

    Point sampling and mask annealing draw random numbers in every training step, and
    a checkpoint does not hold the generators' states. This hook seeds them from
    (seed, rank, iteration) before the step and hands the previous CPU states back
    after it. Validation is isolated likewise.

    The data are numbered (`engine/data_stream.py`): a sample's augmentation depends on
    its number in the run, so that a resumed run reads no batch of the past, and 0 and
    4 workers, 2 processes of 4 images and 1 of 8 see the same samples. Transforms with
    a memory of earlier samples (MMDet's `CachedMosaic`) are beyond that.

    With an `IterableDataset`, MMEngine reads the past batches again.

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
        """Start the data stream at the loop's iteration, whatever was drawn so far."""
        identity = self._identity(runner)
        seed_everything(*identity)
        number_samples(runner, identity[0])

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
    python, numpy, cpu = mixed_seeds(*entropy)
    random.seed(python)
    np.random.seed(numpy)
    torch.manual_seed(cpu)
