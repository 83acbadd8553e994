"""Samples of a training: order, randomness, and what a resumed run reads of them."""

import inspect
import random
import time
from types import SimpleNamespace

import mmengine.dataset.sampler
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
    InfiniteSampler,
    RepeatDataset,
)
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import IterableDataset

import eomt_mm.engine.data_stream as data_stream
from eomt_mm.engine.data_stream import NumberedBatches, number_samples
from eomt_mm.errors import UserError

COCO_IMAGES = 118_287


@TRANSFORMS.register_module(name='StreamToyNoise')
class Noise:
    """Draws from each generator that a pipeline may draw from."""

    def __call__(self, results):
        noise = random.random() + np.random.rand() + torch.rand(1).item()
        return {'inputs': results['index'] + noise / 3}

    def get_indexes(self, dataset):
        return [random.randrange(len(dataset))]


@DATASETS.register_module(name='StreamToyData')
class Data(BaseDataset):
    """A few annotations, and a count of what is read."""

    read = 0

    def __init__(self, size=8, **kwargs):
        self.size = size
        super().__init__(pipeline=[{'type': 'StreamToyNoise'}], **kwargs)

    def load_data_list(self):
        return [{'index': index} for index in range(self.size)]

    def get_cat_ids(self, idx):
        return [0] if idx else [0, 1]

    def prepare_data(self, idx):
        Data.read += 1
        return super().prepare_data(idx)


@TRANSFORMS.register_module(name='StreamToyMix')
class Mix(Noise):
    """Mixes a sample with another one, drawn at random."""

    def __call__(self, results):
        other = results['mix_results'][0]['inputs']
        return {'inputs': results['inputs'] + other * random.random()}


def mixed(data):
    from mmdet.datasets import MultiImageMixDataset

    return MultiImageMixDataset(data, [{'type': 'StreamToyMix'}])


WRAPPERS = {
    'bare': lambda data: data,
    'repeated': lambda data: RepeatDataset(data, times=3),
    'concatenated': lambda data: ConcatDataset([data, Data()]),
    'balanced': lambda data: ClassBalancedDataset(data, oversample_thr=0.5),
    'mixed': mixed,
}


def stream(
    count,
    start=0,
    wrapper='bare',
    workers=0,
    sampler='InfiniteSampler',
    size=8,
    batch_size=2,
):
    """The `count` batches from iteration `start` on, as lists of numbers."""
    loader = dict(
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        sampler=dict(type=sampler),
    )
    dataset = WRAPPERS[wrapper](Data(size))
    runner = SimpleNamespace(
        cfg=Config(dict(train_dataloader=loader)),
        seed=5,
        visualizer=SimpleNamespace(),
        _randomness_cfg={},
    )
    built = Runner.build_dataloader(dict(loader, dataset=dataset), seed=5)
    loop = runner.train_loop = IterBasedTrainLoop(runner, built, max_iters=100)
    loop._iter = start
    assert number_samples(runner, seed=5)
    skip_as_the_loop(loop, start)
    batches = [next(loop.dataloader_iterator) for _ in range(count)]
    # Workers that the cyclic garbage collector ends take PyTorch 5 s each.
    loop.dataloader = loop.dataloader_iterator = built = None
    return [batch['inputs'] for batch in batches]


def skip_as_the_loop(loop, done):
    """What MMEngine's loop does after the hooks; its fork has a method for it."""
    if 'skip_iter' in inspect.getsource(IterBasedTrainLoop):
        loop.dataloader_iterator.skip_iter(done)
    else:
        for _ in range(done):
            next(loop.dataloader_iterator)


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('workers', [0, 4])
def test_stream_goes_on_where_it_stopped(wrapper, workers):
    whole = stream(30, wrapper=wrapper)
    assert len({value for batch in whole for value in batch}) == 60
    assert stream(13, 17, wrapper=wrapper, workers=workers) == whole[17:]


@pytest.mark.parametrize('workers', [0, 4])
def test_next_epoch_has_another_order_and_another_noise(workers):
    whole = stream(12, sampler='DefaultSampler')  # three epochs of 4 batches
    epochs = [[int(v) for batch in whole[i : i + 4] for v in batch] for i in (0, 4, 8)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({value for batch in whole for value in batch}) == 24
    resumed = stream(7, 5, sampler='DefaultSampler', workers=workers)
    assert resumed == whole[5:]


def test_past_batches_are_not_read():
    Data.read = 0
    stream(3, 1000)
    assert Data.read == 6


def test_order_is_that_of_the_sampler():
    indices = iter(InfiniteSampler(Data(), seed=5))
    expected = [[next(indices), next(indices)] for _ in range(9)]
    assert [[int(value) for value in batch] for batch in stream(9)] == expected


@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_processes_share_the_samples_of_one(monkeypatch, sampler):
    alone = stream(6, sampler=sampler, batch_size=4)
    parts = []
    for rank in (0, 1):
        for module in (mmengine.dataset.sampler, data_stream):
            monkeypatch.setattr(module, 'get_dist_info', lambda rank=rank: (rank, 2))
        parts.append(stream(6, sampler=sampler, batch_size=2))
    for batch, first, second in zip(alone, *parts, strict=True):
        dealt = [v for pair in zip(first, second, strict=True) for v in pair]
        assert dealt == batch


def test_no_batch_at_all():
    batches = NumberedBatches([], seed=0, endless=True)
    with pytest.raises(UserError, match='no batch'):
        next(iter(batches))


class Endless(IterableDataset):
    def __iter__(self):
        return iter(range(100))


def test_iterable_data_stay_as_they_are():
    loader = torch.utils.data.DataLoader(Endless(), batch_size=2)
    runner = SimpleNamespace(train_loop=SimpleNamespace(dataloader=loader))
    assert not number_samples(runner, seed=0)
    assert runner.train_loop.dataloader is loader


def test_late_start_of_a_coco_sized_run_costs_seconds():
    def start(iteration):
        begun = time.perf_counter()
        stream(1, iteration, workers=4, size=COCO_IMAGES, batch_size=16)
        return time.perf_counter() - begun

    fresh, late = start(0), start(80_000)
    print(f'fresh {fresh:.2f} s, at iteration 80,000 {late:.2f} s')
    assert late - fresh < 10
