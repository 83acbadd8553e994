"""Sends this process a signal in a given phase of its training.

A config imports it (`custom_imports`). The environment says when: KILL_AT=PHASE, the
phase's occurrence KILL_COUNT (from 1) and the signal KILL_BY.
"""

import os
from contextlib import contextmanager

import mmengine.runner
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

import eomt_mm.engine.checkpoint_hook
import eomt_mm.file_backend

PHASES = ('start', 'data', 'iteration', 'fork', 'validation', 'checkpoint', 'note')
_phase = os.environ.get('KILL_AT')
_left = int(os.environ.get('KILL_COUNT', 1))
_owner = os.getpid()


def reach(phase):
    """Send the signal, if this is the place."""
    global _left
    if phase != _phase or os.getpid() != _owner:
        return
    _left -= 1
    if _left == 0:
        os.kill(_owner, int(os.environ['KILL_BY']))


@HOOKS.register_module()
class Killer(Hook):
    """Phases of the training loop."""

    trains = False

    def before_run(self, runner):
        reach('start')
        runner.model.data_preprocessor.register_forward_hook(self._in_step)

    def _in_step(self, module, inputs, output):
        if module.training:
            Killer.trains = True
            reach('iteration')

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        reach('validation')


def _building(build):
    def wrapper(*args, **kwargs):
        reach('data')
        return build(*args, **kwargs)

    return wrapper


mmengine.runner.Runner.build_dataloader = staticmethod(
    _building(mmengine.runner.Runner.build_dataloader)
)
_atomic_path = eomt_mm.file_backend.atomic_path


@contextmanager
def _writing(path):
    """Half of the file is written when the signal comes."""
    name = os.path.basename(path)
    phase = 'note' if name == 'last_checkpoint' else 'checkpoint'
    with _atomic_path(path) as partial:
        yield partial
        content = partial.read_bytes()
        partial.write_bytes(content[: len(content) // 2])
        reach(phase)
        partial.write_bytes(content)


for module in (eomt_mm.file_backend, eomt_mm.engine.checkpoint_hook):
    assert module.atomic_path is _atomic_path  # else nothing would be killed there
    module.atomic_path = _writing
# Python drops what a handler raises here. Before training nothing is to be tested.
os.register_at_fork(before=lambda: Killer.trains and reach('fork'))
