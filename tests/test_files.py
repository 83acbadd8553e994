import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend

from eomt_mm import checkpoints
from eomt_mm.cli import check_output
from eomt_mm.cli.exit import one_line
from eomt_mm.datasets import annotation_check
from eomt_mm.deploy.model_file import read_meta
from eomt_mm.deploy.predictor import load_photo
from eomt_mm.errors import UserError
from eomt_mm.evaluation.stored_results import read_results
from eomt_mm.files import atomic_path, is_below, new_folder, refuse_special
from eomt_mm.models.token_merging.calibration import read_threshold
from eomt_mm.own_data import find


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
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b'whole'
    with atomic_path(path) as partial:
        partial.write_bytes(b'next')
    assert [p.name for p in tmp_path.iterdir()] == ['iter_10.pth']


def test_failed_write_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / 'a/b/file.txt') as partial:
        partial.write_text('half')
        raise RuntimeError
    assert not any(tmp_path.iterdir())
    with pytest.raises(RuntimeError), new_folder(tmp_path / 'a/b'):
        (tmp_path / 'a/of_another').touch()
        raise RuntimeError
    assert [p.name for p in tmp_path.rglob('*')] == ['a', 'of_another']


def test_a_check_of_an_output_leaves_nothing(tmp_path):
    check_output(tmp_path / 'a/b/file.txt')
    assert not any(tmp_path.iterdir())
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot be written .Not a directory'):
        check_output(tmp_path / 'file/a/b.txt')


def test_a_pipe_is_no_file(tmp_path):
    path = tmp_path / 'pipe'
    os.mkfifo(path)
    with pytest.raises(UserError, match='pipe is a pipe: give a regular file'):
        refuse_special(path)
    for fine in (tmp_path, tmp_path / 'missing', __file__, 'a\0b'):
        refuse_special(fine)


@pytest.mark.parametrize(
    'read',
    [
        read_meta,
        load_photo,
        checkpoints.read,
        annotation_check.read,
        lambda path: read_results(Path(path)),
        lambda path: read_threshold(path, None, 2),
    ],
)
def test_readers_refuse_devices(read):
    """A pipe is refused by the same call, and would hang where it is not."""
    with pytest.raises(UserError, match='/dev/null is a device: give a regular file'):
        read('/dev/null')


@pytest.mark.parametrize('name', ['a.json', 'a.png'])
def test_a_device_among_own_data(tmp_path, name):
    (tmp_path / name).symlink_to('/dev/null')
    with pytest.raises(UserError, match=f'{name} is a device'):
        find(tmp_path)


@pytest.mark.parametrize(
    'name', ['a.png', 'val/a.png', 'a..b.png', '...png', 'ab/c d/ü.png', './a.png']
)
def test_names_below_their_folder(name):
    assert is_below(name)


@pytest.mark.parametrize(
    'name',
    [
        '/a.png',
        '../a.png',
        'val/../../a.png',
        'val\\..\\..\\a.png',
        'C:\\a.png',
        'C:a.png',
        '\\\\host\\share\\a.png',
        '..',
        '.',
        '',
        'a\0.png',
        None,
        3,
        ['a.png'],
    ],
)
def test_names_that_lead_out(name):
    assert not is_below(name)


def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / 'file.txt'
    with pytest.raises(OSError) as caught, atomic_path(path):
        raise OSError(errno.ENOSPC, 'No space left on device')
    assert one_line(caught.value) == f'No space left on device ({path})'
