"""Checkpoints beside those of MMEngine's own hook, and where it loses some."""

import os
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from eomt_mm import checkpoints

SCORES = []


@METRICS.register_module(name='EngineScoredMetric')
class ScoredMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'mIoU': SCORES.pop(0), 'aAcc': 1.0}


def hooks(kind, **options):
    checkpoint = dict(
        type=kind,
        by_epoch=False,
        interval=4,
        max_keep_ckpts=1,
        backend_args=dict(backend='atomic_local'),
        **options,
    )
    return dict(default_hooks=dict(checkpoint=checkpoint))


@pytest.fixture
def scored(toy_config, toy_run):
    """Trains 12 iterations with three validations, whose scores are given."""

    def run(kind, scores, save_best='mIoU', **changes):
        SCORES[:] = scores
        config = toy_config(
            work_dir=kind,
            val_evaluator=dict(type='EngineScoredMetric'),
            **hooks(kind, save_best=save_best),
            **changes,
        )
        runner = toy_run(config)
        files = {p.name for p in Path(config.work_dir).glob('*.pth')}
        return runner, files

    return run


@pytest.mark.parametrize('save_best', ['mIoU', 'auto', ['mIoU', 'aAcc']])
@pytest.mark.parametrize('scores', [[1.0, 3.0, 2.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
def test_same_files_as_mmengine(scored, scores, save_best):
    _, ours = scored('eomt_mm.CheckpointHook', scores, save_best)
    runner, stock = scored('CheckpointHook', scores, save_best)
    assert ours == stock
    note = Path(runner.work_dir, 'last_checkpoint').read_text()
    assert note == str(Path(runner.work_dir, 'iter_12.pth'))


@pytest.mark.parametrize('score', [float('nan'), float('inf')])
def test_a_score_that_is_no_number_is_never_best(scored, score):
    runner, files = scored('eomt_mm.CheckpointHook', [2.0, score, 1.0])
    assert files == {'iter_12.pth', 'best_mIoU_iter_4.pth'}
    assert runner.message_hub.get_info('best_score') == 2.0


def test_broken_weights_replace_nothing(scored, monkeypatch, toy_model):
    """A random model has a score as well, and a better one than before."""
    train_step = toy_model.train_step

    def diverge(self, data, optim_wrapper):
        losses = train_step(self, data, optim_wrapper)
        self.steps = getattr(self, 'steps', 0) + 1
        if self.steps == 6:
            with torch.no_grad():
                self.head.weight.fill_(float('nan'))
        return losses

    monkeypatch.setattr(toy_model, 'train_step', diverge)
    runner, files = scored('eomt_mm.CheckpointHook', [1.0, 2.0, 3.0])
    assert files == {'iter_4.pth', 'best_mIoU_iter_4.pth'}
    for name in files:
        state = checkpoints.read(Path(runner.work_dir, name))['state_dict']
        assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize('kind', ['iter', 'best'])
def test_a_kill_while_writing_leaves_the_previous_file(
    toy_config, toy_run, monkeypatch, kind
):
    """Only one file is kept, and it is there until its successor is."""
    from eomt_mm.file_backend import AtomicLocalBackend

    put = AtomicLocalBackend.put
    names = []

    def fail(self, obj, filepath):
        names.append(os.path.basename(filepath))
        if sum(name.startswith(kind) for name in names) == 2:
            raise KeyboardInterrupt
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, 'put', fail)
    SCORES[:] = [1.0, 2.0, 3.0]
    config = toy_config(
        val_evaluator=dict(type='EngineScoredMetric'),
        **hooks('eomt_mm.CheckpointHook', save_best='mIoU'),
    )
    with pytest.raises(KeyboardInterrupt):
        toy_run(config)
    work_dir = Path(config.work_dir)
    left = {p.name for p in work_dir.glob(f'{kind}_*.pth')}
    assert left == {'iter_4.pth' if kind == 'iter' else 'best_mIoU_iter_4.pth'}
