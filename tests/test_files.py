import errno
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend

from eomt_mm.cli.exit import one_line
from eomt_mm.files import atomic_path, is_below


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
