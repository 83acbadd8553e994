"""A training that has diverged ends, and one that may recover does not."""

from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from eomt_mm.engine import DivergenceHook
from eomt_mm.errors import UserError

NAN, INF = float('nan'), float('inf')


def feed(hook, losses, scales=None, tmp_path='.'):
    """Iterations done before the hook stops the training; None if it does not."""
    hub = MessageHub('divergence')
    scale = iter(scales or ())
    scaler = SimpleNamespace(get_scale=lambda: next(scale))
    wrapper = SimpleNamespace(**({'loss_scaler': scaler} if scales else {}))
    runner = SimpleNamespace(message_hub=hub, optim_wrapper=wrapper, work_dir=tmp_path)
    for runner.iter, loss in enumerate(losses):
        outputs = {'loss': loss, 'decode.loss_mask': loss, 'decode.loss_cls': 1.0}
        for name, value in outputs.items():
            hub.update_scalar(f'train/{name}', value)
        try:
            hook.after_train_iter(runner, runner.iter, None, outputs)
        except UserError as error:
            return runner.iter + 1, str(error)
    return None


@pytest.mark.parametrize('bad', [NAN, INF, -INF])
def test_stops_after_exactly_so_many_in_a_row(tmp_path, bad):
    losses = [1.0, bad, bad, 1.0, bad, bad, bad, bad]
    number, line = feed(DivergenceHook(3), losses, tmp_path=tmp_path)
    assert number == 7
    assert (
        f'iteration 7, the loss is not a finite number (decode.loss_mask={bad})' in line
    )
    assert 'there is no good one' in line
    assert feed(DivergenceHook(5), losses, tmp_path=tmp_path) is None
    assert feed(DivergenceHook(None), losses, tmp_path=tmp_path) is None


def test_skipped_steps_do_not_count(tmp_path):
    scales = [4.0, 2.0, 1.0, 0.5, 0.25]
    # Two are skipped at a scale above 1; from the third on no scale is to blame.
    assert feed(DivergenceHook(3), [NAN] * 5, scales, tmp_path)[0] == 5
    assert feed(DivergenceHook(4), [NAN] * 5, scales, tmp_path) is None


def test_a_fixed_scale_is_no_excuse(tmp_path):
    assert feed(DivergenceHook(2), [NAN] * 3, [8.0] * 3, tmp_path)[0] == 3


@pytest.mark.parametrize('patience', [0, -1])
def test_patience_is_checked(patience):
    with pytest.raises(UserError, match='expected 1 or more'):
        DivergenceHook(patience)


def test_names_the_last_good_checkpoint(toy_config, toy_run, toy_model, monkeypatch):
    def diverging(self, *args, **kwargs):
        losses = forward(self, *args, **kwargs)
        self.calls = getattr(self, 'calls', 0) + self.training
        if self.calls > 7 and isinstance(losses, dict):
            losses['loss'] = losses['loss'] * NAN
        return losses

    forward = toy_model.forward
    monkeypatch.setattr(toy_model, 'forward', diverging)
    hooks = [
        {'type': 'eomt_mm.MaskAnnealingHook'},
        {'type': 'eomt_mm.IterationSeedHook'},
        {'type': 'eomt_mm.DivergenceHook', 'patience': 4},
    ]
    config = toy_config(custom_hooks=hooks)
    # MMEngine's CheckpointHook saves the NaN weights of iteration 10 too.
    with pytest.raises(UserError, match=r'up to iteration 11.*iter_5\.pth'):
        toy_run(config)
