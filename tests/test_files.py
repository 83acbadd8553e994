import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend

from eomt_mm.files import atomic_path


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
