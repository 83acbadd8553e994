"""One user of a folder at a time."""

import errno
import fcntl
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from eomt_mm.errors import UserError
from eomt_mm.files import sole_user


def test_what_a_killed_call_left_running_holds_the_lock(tmp_path):
    """A folder is free again when the last command that inherited the lock is over."""
    with sole_user(tmp_path / 'new') as lock:
        with pytest.raises(UserError, match='in use by another call'):
            with sole_user(tmp_path / 'new'):
                pass
        left = subprocess.Popen(
            [sys.executable, '-c', 'import time; time.sleep(60)'], pass_fds=(lock,)
        )
    with pytest.raises(UserError, match='left behind'):
        with sole_user(tmp_path / 'new'):
            pass
    left.kill()
    left.wait()
    with sole_user(tmp_path / 'new'):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').touch()
    for folder in (tmp_path / 'file', tmp_path / 'file/below', Path('/proc/nothing')):
        with pytest.raises(UserError, match='give another --work-dir'):
            with sole_user(folder):
                pass


def _idle(starts, ends):
    starts.set()
    ends.wait(60)


def test_a_forked_process_does_not_hold_the_lock(tmp_path):
    """Data workers outlive a killed training by seconds."""
    context = multiprocessing.get_context('fork')
    starts, ends = context.Event(), context.Event()
    with sole_user(tmp_path):
        worker = context.Process(target=_idle, args=(starts, ends))
        worker.start()
        assert starts.wait(30)
    try:
        with sole_user(tmp_path):
            pass
    finally:
        ends.set()
        worker.join()


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, number):
    def flock(*args):
        raise OSError(number, 'no locks')

    monkeypatch.setattr(fcntl, 'flock', flock)
    with pytest.warns(UserWarning, match='cannot be locked'):
        with sole_user(tmp_path):
            pass
