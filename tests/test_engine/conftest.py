"""A model and a data set of a few numbers, for real MMEngine runs."""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

import eomt_mm.engine  # noqa: F401

DEPTH = 6
NUM_BLOCKS = 3


class ToyBackbone(nn.Module):
    """What the training machinery knows of a backbone, with timm's names."""

    def __init__(self, depth=DEPTH, num_blocks=NUM_BLOCKS):
        super().__init__()
        self.depth = depth
        self.num_blocks = num_blocks
        self.mask_probs = [1.0] * num_blocks
        self.patch_embed = nn.Linear(1, 1)
        self.pos_embed = nn.Parameter(torch.randn(1))
        self.cls_token = nn.Parameter(torch.randn(1))
        self.reg_token = nn.Parameter(torch.randn(1))
        self.blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(depth))
        self.norm = nn.LayerNorm(1)
        self.queries = nn.Parameter(torch.randn(1))


class ToyModel(BaseModel):
    """Its loss depends on every parameter, on chance and on the masks."""

    def __init__(self, depth=DEPTH, num_blocks=NUM_BLOCKS):
        super().__init__()
        self.backbone = ToyBackbone(depth, num_blocks)
        self.head = nn.Linear(1, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        inputs = torch.stack(inputs)
        if mode != 'loss':
            return [inputs.sum() + torch.rand(1)]
        noise = torch.rand(1) + np.random.rand() + random.random()
        masks = sum(self.backbone.mask_probs)
        scale = inputs.mean() + noise + masks
        return {'loss': sum((p * scale - 1).square().sum() for p in self.parameters())}


class ToyData(Dataset):
    """Draws in the process, as an augmentation with num_workers=0 does."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(1)
        return {'inputs': noise.float() + index}


class ToyMetric(BaseMetric):
    """A metric that also draws."""

    def process(self, data_batch, data_samples):
        self.results.append(random.random())

    def compute_metrics(self, results):
        return {'mIoU': 50.0}


# Names of their own: registries are global to the test session.
DATASETS.register_module(name='EngineToyData', module=ToyData)
METRICS.register_module(name='EngineToyMetric', module=ToyMetric)
MODELS.register_module(name='EngineToyModel', module=ToyModel)


@pytest.fixture
def toy_model():
    """The class of the toy model."""
    return ToyModel


@pytest.fixture
def toy_config(tmp_path):
    """Returns a function that makes the config of a run."""
    made = itertools.count()

    def make(max_iters=12, work_dir='run', **changes):
        loader = {
            'dataset': {'type': 'EngineToyData'},
            'batch_size': 2,
            'num_workers': 0,
        }
        settings = {
            'model': {'type': 'EngineToyModel'},
            'work_dir': str(tmp_path / work_dir),
            'train_dataloader': {**loader, 'sampler': {'type': 'InfiniteSampler'}},
            'train_cfg': {
                'type': 'IterBasedTrainLoop',
                'max_iters': max_iters,
                'val_interval': 4,
            },
            'val_dataloader': {**loader, 'sampler': {'type': 'DefaultSampler'}},
            'val_cfg': {},
            'val_evaluator': {'type': 'EngineToyMetric'},
            'test_dataloader': {**loader, 'sampler': {'type': 'DefaultSampler'}},
            'test_cfg': {},
            'test_evaluator': {'type': 'EngineToyMetric'},
            'optim_wrapper': {
                'constructor': 'eomt_mm.LayerDecayConstructor',
                'optimizer': {'type': 'AdamW', 'lr': 1e-2, 'weight_decay': 0.05},
                'clip_grad': {'max_norm': 0.01},
            },
            'param_scheduler': [
                {
                    'type': 'eomt_mm.TwoStageWarmupPolyLR',
                    'warmup': (2, 3),
                    'by_epoch': False,
                }
            ],
            'custom_hooks': [
                {'type': 'eomt_mm.MaskAnnealingHook'},
                {'type': 'eomt_mm.IterationSeedHook'},
            ],
            'default_hooks': {
                'logger': {
                    'type': 'LoggerHook',
                    'interval': 1,
                    'log_metric_by_epoch': False,
                },
                'checkpoint': {
                    'type': 'CheckpointHook',
                    'by_epoch': False,
                    'interval': 5,
                    'max_keep_ckpts': 3,
                    'backend_args': {'backend': 'atomic_local'},
                },
            },
            'randomness': {'seed': 3},
            'log_level': 'ERROR',
            'experiment_name': f'{tmp_path.name}_{next(made)}',
            **changes,
        }
        return Config(settings)

    return make


@pytest.fixture
def toy_run():
    """Returns a function that trains from a config and returns the Runner."""

    def run(config):
        runner = Runner.from_cfg(config)
        runner.train()
        # Workers that the cyclic garbage collector ends take PyTorch 5 s each.
        runner.train_loop.dataloader = runner.train_loop.dataloader_iterator = None
        return runner

    return run


@pytest.fixture
def run_and_resume(toy_config, toy_run):
    """The whole run, and one as if killed: all that remains is what `stop` saved."""

    def run(stop, **changes):
        whole = toy_run(toy_config(work_dir='whole', **changes))
        config = toy_config(work_dir='whole', resume=True, **changes)
        work_dir = Path(config.work_dir)
        (work_dir / 'last_checkpoint').write_text(str(work_dir / f'{stop}.pth'))
        return whole, toy_run(config)

    return run


@pytest.fixture
def assert_same_run():
    """Compares the weights of two runs of 12 iterations, and what they have logged."""

    def compare(one, other, logged=()):
        weights = one.model.state_dict()
        assert one.iter == other.iter == 12
        for name, value in other.model.state_dict().items():
            assert torch.equal(value, weights[name]), name
        for key in logged:
            first, second = (
                run.message_hub.get_scalar(f'train/{key}').data[0]
                for run in (one, other)
            )
            assert len(first) == 12 and np.array_equal(first, second), key

    return compare
