"""Data of a training: each sample depends on its number in the run alone.

MMEngine's stream of data is a matter of history: a sample's augmentation depends on
all that its process drew before, so a resumed run must read every past batch again.
Here the order comes from the sampler, which is cheap to run ahead, and the
augmentation from (seed, epoch, batch of the epoch, place in the batch). Any number of
workers, and any split of a batch over processes, gives the same samples.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import IterBasedTrainLoop
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from eomt_mm.compat import StandingIterator
from eomt_mm.errors import UserError


@dataclass(frozen=True)
class SeededBatch:
    """Indices of a batch; the generators are seeded for each when it is reached.

    PyTorch reads a batch with `[dataset[index] for index in batch]`, in a worker or in
    the main process. The seed is set between `index` and `dataset[index]`, so that it
    reaches through any wrapper of data sets.
    """

    indices: list[int]
    seeds: list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        for index, seed in zip(self.indices, self.seeds, strict=True):
            seed_cpu(*seed)
            yield index


class NumberedBatches:
    """A batch sampler that numbers what another one yields.

    Args:
        batches (Iterable[list[int]]): Batch sampler of this process.
        seed (int): Seed of the run.
        skip (int): Batches to leave out at the start.
        endless (bool): Whether the next epoch follows by itself.
    """

    def __init__(
        self,
        batches: Iterable[list[int]],
        seed: int,
        skip: int = 0,
        endless: bool = False,
    ) -> None:
        self.batches = batches
        self.seed = seed
        self.skip = skip
        self.endless = endless
        self.epoch = 0
        # MMEngine's DistSamplerSeedHook sets the epoch of `batch_sampler.sampler`.
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the seeds of an epoch."""
        self.epoch = epoch
        for part in (self.batches, getattr(self.batches, 'sampler', None)):
            if hasattr(part, 'set_epoch'):
                part.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[SeededBatch]:
        rank, world_size = get_dist_info()
        skip, self.skip = self.skip, 0
        for epoch in count(self.epoch):
            self.set_epoch(epoch)
            number = -1
            for number, indices in enumerate(self.batches):
                if skip:
                    skip -= 1
                    continue
                # MMEngine's samplers deal a batch out to the processes in turn.
                places = range(rank, rank + len(indices) * world_size, world_size)
                seeds = [(self.seed, epoch, number, place) for place in places]
                yield SeededBatch(list(indices), seeds)
            if not self.endless:
                return
            if number < 0:
                raise UserError(
                    'the training data make no batch: set a smaller '
                    'train_dataloader.batch_size, or drop_last=False'
                )


def number_samples(runner, seed: int) -> bool:
    """Give the train loop a loader that stands at its iteration.

    Args:
        runner (Runner): Its train loop is built, and resumed if it will be.
        seed (int): Seed of the augmentation.

    Returns:
        bool: False where the loader has no batches of indices, as with an
        `IterableDataset`; it is left as it is.
    """
    loop = runner.train_loop
    loader = loop.dataloader
    if not isinstance(loader, DataLoader) or not _has_batches(loader):
        return False
    by_iteration = isinstance(loop, IterBasedTrainLoop)
    batches = NumberedBatches(
        _fresh_batches(runner, loader),
        seed,
        loop.iter if by_iteration else _done_of_epoch(loop),
        endless=by_iteration,
    )
    loop.dataloader = _with_batches(loader, batches)
    if by_iteration:
        # MMEngine has started an iterator at the first batch; its workers end here.
        loop.dataloader_iterator = StandingIterator(
            iter(loop.dataloader), loop.dataloader_iterator, loop.iter
        )
    return True


def seed_cpu(*entropy: int) -> None:
    """Seed what a data pipeline draws from: Python, NumPy and torch on the CPU.

    Args:
        entropy: Non-negative integers; (1, 2) and (2, 1) give unrelated streams.
    """
    python, numpy, cpu = mixed_seeds(*entropy)
    random.seed(python)
    np.random.seed(numpy)
    torch.default_generator.manual_seed(cpu)


def mixed_seeds(*entropy: int) -> tuple[int, int, int]:
    """Three unrelated 32-bit seeds from a mix of non-negative integers."""
    # The length is mixed in as well: numpy pads with zeros, (1, 2) equals (1, 2, 0).
    sequence = np.random.SeedSequence((len(entropy), *entropy))
    return tuple(int(word) for word in sequence.generate_state(3))


def _has_batches(loader: DataLoader) -> bool:
    return loader.batch_sampler is not None and not isinstance(
        loader.dataset, IterableDataset
    )


def _done_of_epoch(loop) -> int:
    """Batches of the current epoch that were trained on before the checkpoint."""
    done = loop.iter - loop.epoch * len(loop.dataloader)
    # Out of range, it comes from another batch size: the epoch starts anew.
    return done if 0 < done < len(loop.dataloader) else 0


def _fresh_batches(runner, loader: DataLoader) -> Iterable[list[int]]:
    """A batch sampler that nothing has been drawn from.

    An `InfiniteSampler` goes on where its last iterator stopped, and the loop's first
    one may have fetched ahead. A new sampler also gets the seed of a resumed run.
    """
    config = runner.cfg.get('train_dataloader')
    sampler = config.get('sampler') if isinstance(config, dict) else None
    if not isinstance(sampler, dict):
        return loader.batch_sampler
    differs = runner._randomness_cfg.get('diff_rank_seed', False)
    sampler = DATA_SAMPLERS.build(
        sampler,
        default_args=dict(
            dataset=loader.dataset, seed=None if differs else runner.seed
        ),
    )
    batch_sampler = config.get('batch_sampler')
    if batch_sampler is None:
        return BatchSampler(sampler, loader.batch_size, loader.drop_last)
    return DATA_SAMPLERS.build(
        batch_sampler,
        default_args=dict(sampler=sampler, batch_size=config['batch_size']),
    )


def _with_batches(loader: DataLoader, batches: NumberedBatches) -> DataLoader:
    """The same loader with another batch sampler, which PyTorch forbids to replace."""
    return DataLoader(
        loader.dataset,
        batch_sampler=batches,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
