"""The set-up of `.venv`; interpreters, compilers, pip and the disk are stand-ins."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools/misc'))

import setup_env  # noqa: E402
from setup_env import SetupError  # noqa: E402

COMMAND = [sys.executable, 'tools/misc/setup_env.py']
VERSIONS = {
    'python3.8': [3, 8],
    'python3.10': [3, 10],
    'python3.12': [3, 12],
    'python3': [3, 13],
}


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\n' + text + '\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def checkout(tmp_path):
    """A copy of all that the set-up reads."""
    for name in (*setup_env.INPUTS[:-1], COMMAND[1]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """The module, working on a `.venv` in a temporary folder."""
    folder = tmp_path / '.venv'
    folder.mkdir()
    for name, value in dict(
        ROOT=tmp_path,
        VENV=folder,
        PYTHON=folder / 'bin/python',
        RECORD=folder / 'setup.json',
        LOG=folder / 'setup.log',
        TMP=folder / 'tmp',
        INPUTS=[],
    ).items():
        monkeypatch.setattr(setup_env, name, value if name == 'INPUTS' else str(value))
    return folder


def refused(pattern, function, *args):
    with pytest.raises(SetupError, match=pattern) as error:
        function(*args)
    assert '\n' not in str(error.value)


def fake_probe(name):
    name = os.path.basename(name)
    return [VERSIONS[name], '', '', ''] if name in VERSIONS else None


def test_unsupported_default_falls_through_to_a_supported_python(monkeypatch):
    monkeypatch.setattr(setup_env, 'probe', fake_probe)
    assert setup_env.choose_python('')[0] == [3, 12]
    monkeypatch.setattr(setup_env, 'probe', lambda name: None)
    refused('no Python runs here', setup_env.choose_python, '')


@pytest.mark.parametrize(
    'asked, words',
    [('python3.8', 'is Python 3.8'), ('python3', '3.13'), ('shim', 'does not run')],
)
def test_named_python_is_never_replaced(asked, words, monkeypatch):
    monkeypatch.setattr(setup_env, 'probe', fake_probe)
    refused(f'{words}.*3.10 to 3.12', setup_env.choose_python, asked)


def test_probe_runs_the_interpreter(tmp_path):
    assert setup_env.probe(sys.executable)[:2] == [[*sys.version_info[:2]], sys.prefix]
    assert setup_env.probe(str(tmp_path / 'missing')) is None
    assert setup_env.probe(executable(tmp_path / 'python3.12', 'exit 127')) is None


def test_full_disk_is_reported_before_the_start(venv, monkeypatch):
    usage = SimpleNamespace(free=8.4e9)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    refused(r'8.5 GB needed, 8.4 GB free', setup_env.check_disk)
    usage.free = 8.6e9
    setup_env.check_disk()


def test_what_is_there_needs_no_room(venv, monkeypatch):
    (venv / 'torch.so').write_bytes(b'x' * 1_000_000)
    monkeypatch.setattr(setup_env, 'VENV_BYTES', 1_000_000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=0))
    setup_env.check_disk()


def test_compiler_is_tried_or_explained(tmp_path, monkeypatch):
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    refused('no C.. compiler', setup_env.find_compiler, '/include')
    executable(tmp_path / 'bin/g++', 'exit 1')
    refused('/include/Python.h', setup_env.find_compiler, '/include')
    executable(tmp_path / 'bin/clang++', 'exit 0')
    assert setup_env.find_compiler('/include') == 'clang++'
    executable(tmp_path / 'bin/ccache', '[ "$1" = g++ ]')
    monkeypatch.setenv('CXX', 'ccache g++')
    assert setup_env.find_compiler('/include') == 'ccache g++'


def test_compile_jobs(monkeypatch):
    monkeypatch.delenv('MAX_JOBS', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 8)
    for memory, jobs in ((32e9, 8), (4e9, 2), (1e9, 1)):
        sizes = {'SC_PAGE_SIZE': 1, 'SC_PHYS_PAGES': memory}
        monkeypatch.setattr(os, 'sysconf', sizes.get)
        assert setup_env.compile_jobs() == jobs
    monkeypatch.setenv('MAX_JOBS', '3')
    assert setup_env.compile_jobs() == 3
    for wrong in ('0', 'all', '-1'):
        monkeypatch.setenv('MAX_JOBS', wrong)
        refused(f'MAX_JOBS={wrong}', setup_env.compile_jobs)


def test_ready_only_with_the_same_inputs_and_every_package(venv, tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHON', '')
    monkeypatch.delenv('MMCV_CUDA', raising=False)
    monkeypatch.setattr(setup_env, 'probe', lambda name: [[3, 11], '', '', ''])
    (tmp_path / 'pins.txt').write_text('torch==1')
    monkeypatch.setattr(setup_env, 'INPUTS', ['pins.txt'])
    _, site, cuda, key, ready = setup_env.read_state()
    assert not cuda and not ready

    (Path(site) / 'torch').mkdir(parents=True)
    setup_env.write_record(key=key, cuda=False, packages=['torch'])
    assert setup_env.read_state()[-1]
    monkeypatch.setenv('MMCV_CUDA', '1')
    assert not setup_env.read_state()[-1]
    monkeypatch.delenv('MMCV_CUDA')
    (tmp_path / 'pins.txt').write_text('torch==2')
    assert not setup_env.read_state()[-1]
    (tmp_path / 'pins.txt').write_text('torch==1')
    (Path(site) / 'torch').rmdir()
    assert not setup_env.read_state()[-1]

    setup_env.write_record(cuda=True)  # an interrupted set-up with MMCV_CUDA=1
    assert setup_env.read_state()[2]
    (venv / 'setup.json').write_text('{"key": "k", "pack')
    assert not setup_env.read_state()[-1]


def fake_package(site, name, content='print()'):
    (site / f'{name}.py').write_text(content)
    info = site / f'{name}-1.0.dist-info'
    info.mkdir()
    rows = f'{name}.py,sha256=x,7\n__pycache__/{name}.pyc,,\n{info.name}/RECORD,,\n'
    (info / 'RECORD').write_text(rows)
    return info


def test_damaged_packages_are_forgotten(tmp_path):
    kept = fake_package(tmp_path, 'kept')
    short = fake_package(tmp_path, 'short', content='')
    missing = fake_package(tmp_path, 'missing')
    (tmp_path / 'missing.py').unlink()
    unrecorded = fake_package(tmp_path, 'unrecorded')
    (unrecorded / 'RECORD').unlink()
    (tmp_path / '~umpy').mkdir()
    setup_env.forget_damaged(str(tmp_path))
    assert [*tmp_path.glob('*.dist-info')] == [kept] and not short.exists()
    assert not missing.exists() and not (tmp_path / '~umpy').exists()


@pytest.mark.parametrize(
    'output, words',
    [
        ('ERROR: x: [Errno 28] No space left on device', 'disk is full'),
        ("WARNING: Retrying after 'NewConnectionError(...)'", 'network and proxy'),
        ('ERROR: No matching distribution found for numpy==9', 'numpy==9'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'MAX_JOBS=1'),
        ('a.cpp:3:1: error: expected ;', 'a.cpp:3:1: error: expected ;'),
        ('some last word', 'some last word'),
        ('', 'status 1'),
    ],
)
def test_failure_of_pip_in_one_line(output, words, venv, tmp_path):
    executable(venv / 'bin/python', f'printf "%s" "{output}"; exit 1')
    lock = os.open(tmp_path, os.O_RDONLY)
    refused(words, setup_env.pip, lock, 'x')
    os.close(lock)
    assert output in (venv / 'setup.log').read_text()


def test_foreign_folder_is_never_emptied(checkout):
    for folder in ('a', 'b'):
        (checkout / '.venv' / folder).mkdir(parents=True)
    result = subprocess.run(COMMAND, cwd=checkout, capture_output=True, text=True)
    assert result.returncode == 2 and result.stderr.count('\n') == 1
    assert 'was not made by this set-up' in result.stderr
    assert sorted(os.listdir(checkout / '.venv')) == ['a', 'b']


def test_second_setup_waits_for_the_lock(checkout):
    (checkout / '.venv/foreign').mkdir(parents=True)  # ends it once it has the lock
    lock = os.open(checkout, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with subprocess.Popen(COMMAND, cwd=checkout, **pipes) as second:
        assert 'another set-up' in second.stdout.readline()
        assert second.poll() is None
        os.close(lock)
        assert 'not made by this set-up' in second.stdout.readline()
        assert second.wait(60) == 2


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_lock_is_held_until_the_last_command_has_ended(number, checkout):
    """Killed while `python -m venv` runs: that ends first, or goes with the set-up."""
    slow = executable(checkout / 'python', 'echo > began; sleep 3; echo > ended')
    code = (
        'import os, signal, sys; sys.path.insert(0, "tools/misc"); import setup_env;'
        'signal.signal(signal.SIGTERM, setup_env.interrupt);'
        'os.makedirs(setup_env.VENV);'
        f'setup_env.create_venv(setup_env.take_lock(), {slow!r})'
    )
    command = [sys.executable, '-c', code]
    setup = subprocess.Popen(command, cwd=checkout, stderr=subprocess.DEVNULL)
    while not (checkout / 'began').exists():
        assert setup.poll() is None
        time.sleep(0.02)
    setup.send_signal(number)
    setup.wait(30)
    lock = os.open(checkout, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert (checkout / 'ended').exists() == (number == signal.SIGKILL)
    os.close(lock)
