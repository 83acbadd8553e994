import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer

from eomt_mm.files import atomic_path


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)
        self.name = f'{function.__name__} {arguments[-1]}'

    def __reduce__(self):
        return self.call


@pytest.fixture
def load(tmp_path):
    """Saves with torch and loads with weights_only."""

    def roundtrip(value):
        torch.save({'weights': torch.ones(2), 'value': value}, tmp_path / 'file.pth')
        return torch.load(tmp_path / 'file.pth', weights_only=True)['value']

    return roundtrip


def test_what_mmengine_writes_loads(load):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    loaded = load({'loss': history, 'best': np.float64(0.5), 'step': np.int64(3)})
    assert loaded['loss'].mean() == 1.5
    assert loaded['loss'].statistics('max') == 2.0
    assert (loaded['best'], loaded['step']) == (0.5, 3)


@pytest.mark.parametrize(
    'attack',
    [
        Calls(os.system, 'true'),
        Calls(eval, '1'),
        Calls(getattr, Calls(__import__, 'os'), 'system'),
        Calls(getattr, Calls(__import__, 'builtins'), 'eval'),
        Calls(getattr, HistoryBuffer, '__init__'),
        Calls(getattr, HistoryBuffer, '__subclasses__'),
        Calls(getattr, np.ndarray, 'tofile'),
        Calls(getattr, np.dtype, '__class__'),
        np.array([object()], dtype=object),
    ],
    ids=lambda attack: getattr(attack, 'name', 'object array'),
)
def test_anything_else_is_refused(load, attack):
    with pytest.raises(pickle.UnpicklingError):
        load(attack)


def test_getattr_is_refused_by_the_replacement_itself(load):
    # ... and not only because its first argument is unknown.
    with pytest.raises(pickle.UnpicklingError, match='refused to look up'):
        load(Calls(getattr, HistoryBuffer, '__init__'))


def test_checkpoints_of_a_run(toy_config, toy_run):
    config = toy_config(max_iters=16)
    config.default_hooks.checkpoint.save_best = 'mIoU'
    toy_run(config)
    work_dir = Path(config.work_dir)
    # Every 5 and the last, three kept; mIoU is constant, hence best the first time.
    names = {path.name for path in work_dir.iterdir() if path.suffix == '.pth'}
    assert names == {f'iter_{i}.pth' for i in (10, 15, 16)} | {'best_mIoU_iter_4.pth'}
    last = (work_dir / 'last_checkpoint').read_text()
    assert Path(last) == work_dir / 'iter_16.pth'
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint['meta']['iter'] == 16


def test_failed_write_leaves_the_previous_file(tmp_path):
    path = tmp_path / 'new_folder' / 'file.txt'
    backend = get_file_backend(backend_args={'backend': 'atomic_local'})
    backend.put(b'first', path)
    backend.put_text('zwölf', path)
    assert path.read_text(encoding='utf-8') == 'zwölf'
    with pytest.raises(RuntimeError), atomic_path(path) as partial:
        partial.write_text('half')
        raise RuntimeError
    assert [p.name for p in path.parent.iterdir()] == ['file.txt']
    assert path.read_text(encoding='utf-8') == 'zwölf'


def test_killed_write_leaves_the_previous_file(tmp_path):
    path = tmp_path / 'iter_10.pth'
    path.write_bytes(b'whole')
    script = f"""
        import os, signal
        from eomt_mm.files import atomic_path
        with atomic_path({str(path)!r}) as partial:
            partial.write_bytes(b'half')
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(script)],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b'whole'
    with atomic_path(path) as partial:
        partial.write_bytes(b'next')
    assert [p.name for p in tmp_path.iterdir()] == ['iter_10.pth']
