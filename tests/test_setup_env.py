"""The set-up of `.venv`; interpreters, compilers, pip and the disk are stand-ins."""

import fcntl
import json
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

OTHERS = ['requirements/onedl.txt', 'requirements/onedl_constraints.txt']
COMMAND = [sys.executable, '-u', 'tools/misc/setup_env.py']


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('#!/bin/sh\n' + text + '\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def checkout(tmp_path):
    """A copy of all that the set-up reads."""
    for name in (*setup_env.INPUTS[:-1], *OTHERS, COMMAND[-1], 'Makefile'):
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
        REQUIREMENTS=[],
    ).items():
        monkeypatch.setattr(setup_env, name, value)
    return folder


def refused(pattern, function, *args):
    with pytest.raises(SetupError, match=pattern) as error:
        function(*args)
    assert '\n' not in str(error.value)


def make_env(checkout, **options):
    words = [f'{name}={value}' for name, value in options.items()]
    env = {**os.environ, 'PATH': f'{checkout}/bin:/usr/bin:/bin'}
    for name in ('MAKEFLAGS', 'MAKELEVEL'):  # the tests may run under make
        env.pop(name, None)
    return subprocess.run(
        ['make', 'env', *words], cwd=checkout, env=env, capture_output=True, text=True
    )


def test_an_unsupported_python_falls_through_to_a_supported_one(checkout):
    """And so does one that does not run, as the shims of pyenv."""
    for name in ('python3.11', 'python3.12'):
        executable(checkout / 'bin' / name, 'exit 127')
    executable(checkout / 'bin/python3.10', 'test "$1" = -c || echo "started: $*"')
    result = make_env(checkout)
    assert result.returncode == 0
    assert result.stdout == 'started: -u tools/misc/setup_env.py\n'


@pytest.mark.parametrize('version', [(3, 8), (3, 9), (3, 13)])
def test_named_python_is_never_replaced(checkout, version):
    executable(checkout / 'bin/python3.11', 'echo never')
    code = f'import sys; sys.version_info = {version}; exec(sys.argv[1])'
    named = executable(checkout / 'old', f'exec {sys.executable} -c "{code}" "$2"')
    for python in (named, 'no-such-python'):
        result = make_env(checkout, PYTHON=python)
        assert result.returncode == 2 and result.stdout == ''
        assert f'{python} is no Python 3.10 to 3.12' in result.stderr.splitlines()[0]


@pytest.mark.parametrize(
    'stack, there, absent',
    [
        ('stock', ['mmengine', 'mmdet', 'mmsegmentation'], ['mmcv', 'onedl']),
        ('onedl', ['onedl-mmengine', 'onedl-mmdetection'], ['onedl-mmcv', 'mm']),
    ],
)
def test_each_stack_gets_its_own_packages(checkout, stack, there, absent):
    code = 'import sys; sys.path.insert(0, "tools/misc"); import setup_env as s; '
    code += 'print(s.VENV.name, s.CONSTRAINTS, *s.needed(), sep="\\n")'
    venv, constraints, *lines = subprocess.run(
        [sys.executable, '-c', code],
        cwd=checkout,
        env={**os.environ, 'STACK': stack},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert venv == dict(stock='.venv', onedl='.venv-onedl')[stack]
    assert (checkout / constraints).exists()
    assert all(any(line.startswith(name) for line in lines) for name in there)
    assert not any(line.startswith(name) for line in lines for name in absent)


def test_an_unknown_stack(checkout):
    result = make_env(checkout, STACK='mmlab', PYTHON=sys.executable)
    assert result.returncode == 2
    assert 'STACK=mmlab: stock or onedl is expected' in result.stderr


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
    refused('no C.. compiler', setup_env.find_compiler)
    executable(tmp_path / 'bin/g++', 'exit 1')
    refused('/Python.h', setup_env.find_compiler)
    executable(tmp_path / 'bin/clang++', 'exit 0')
    assert setup_env.find_compiler() == 'clang++'
    executable(tmp_path / 'bin/ccache', '[ "$1" = g++ ]')
    monkeypatch.setenv('CXX', 'ccache g++')
    assert setup_env.find_compiler() == 'ccache g++'


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


def finish(venv, **changes):
    wanted, *_ = setup_env.read_state()
    record = {**wanted, 'packages': ['lib/torch'], **changes}
    (venv / 'setup.json').write_text(json.dumps(record))


def test_ready_only_with_the_same_inputs_and_every_package(venv, tmp_path, monkeypatch):
    monkeypatch.delenv('MMCV_CUDA', raising=False)
    (tmp_path / 'pins.txt').write_text('torch==1')
    monkeypatch.setattr(setup_env, 'INPUTS', ['pins.txt'])
    wanted, whole, ready = setup_env.read_state()
    assert not wanted['cuda'] and not whole and not ready

    (venv / 'lib/torch').mkdir(parents=True)
    finish(venv)
    assert setup_env.read_state()[1:] == (True, True)
    monkeypatch.setenv('MMCV_CUDA', '1')
    assert setup_env.read_state()[1:] == (True, False)
    monkeypatch.delenv('MMCV_CUDA')
    (tmp_path / 'pins.txt').write_text('torch==2')
    assert setup_env.read_state()[1:] == (True, False)
    (tmp_path / 'pins.txt').write_text('torch==1')
    for changes in (dict(python=[3, 9]), dict(root='/elsewhere'), dict(packages=[])):
        finish(venv, **changes)
        assert setup_env.read_state()[1:] == (False, False)
    finish(venv)
    (venv / 'lib/torch').rmdir()
    assert setup_env.read_state()[1:] == (False, False)

    # An interrupted set-up with MMCV_CUDA=1, and a record that was cut short.
    (venv / 'setup.json').write_text('{"cuda": true}')
    wanted, whole, ready = setup_env.read_state()
    assert wanted['cuda'] and not whole and not ready
    (venv / 'setup.json').write_text('{"key": "k", "pack')
    assert not setup_env.read_state()[-1]


@pytest.fixture
def stand_ins(venv, tmp_path, monkeypatch):
    """Commands are only listed; returns the list."""
    ran = []

    def run(lock, *command, **env):
        ran.append(' '.join(str(word) for word in command))
        (venv / 'lib/python3/site-packages/torch').mkdir(parents=True, exist_ok=True)
        return 0

    monkeypatch.setattr(setup_env, 'run', run)
    monkeypatch.setattr(setup_env, 'check_disk', lambda: None)
    monkeypatch.setattr(setup_env, 'find_compiler', lambda: 'c++')
    return ran


def test_an_interrupted_set_up_starts_anew(venv, stand_ins, monkeypatch):
    record = venv / 'setup.json'
    for name in ('lib/python3/site-packages/half', 'bin', 'tmp'):
        (venv / name).mkdir(parents=True)
    (venv / 'lib64').symlink_to('lib')
    record.write_text('{"cuda": false}')
    setup_env.main()
    assert stand_ins[0].endswith(f'-m venv {venv}')
    assert not (venv / 'lib/python3/site-packages/half').exists()
    packages = json.loads(record.read_text())['packages']
    assert packages == ['lib/python3/site-packages/torch']
    count = len(stand_ins)
    setup_env.main()
    assert len(stand_ins) == count  # nothing is to do


def test_a_whole_environment_is_only_brought_up_to_date(venv, stand_ins, tmp_path):
    (venv / 'lib/python3/site-packages').mkdir(parents=True)
    (venv / 'lib/torch').mkdir()
    finish(venv, key='of other pins')
    setup_env.main()
    assert not any('-m venv' in command for command in stand_ins)
    assert any(' torch torchvision' in command for command in stand_ins)
    assert (venv / 'lib/torch').is_dir() and not (venv / 'tmp').exists()


@pytest.mark.parametrize(
    'output, words',
    [
        ('ERROR: x: [Errno 28] No space left on device', 'disk is full'),
        ("WARNING: Retrying after 'NewConnectionError(...)'", 'network and proxy'),
        ('ERROR: No matching distribution found for numpy==9', 'numpy==9'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'MAX_JOBS=1'),
        ('a.cpp:3:1: error: expected ;', 'a.cpp:3:1: error: expected ;'),
        ('some last word', 'status 1'),
        ('', 'status 1'),
    ],
)
def test_failure_of_pip_in_one_line(output, words, venv, tmp_path):
    log = venv / 'setup.log'
    executable(venv / 'bin/python', f'printf "%s" "{output}" > {log}; exit 1')
    lock = os.open(tmp_path, os.O_RDONLY)
    refused(words, setup_env.pip, lock, 'x')
    os.close(lock)


def test_a_full_disk_is_named_where_the_log_had_no_room(venv, tmp_path, monkeypatch):
    executable(venv / 'bin/python', 'exit 1')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=1e6))
    lock = os.open(tmp_path, os.O_RDONLY)
    refused('disk is full', setup_env.pip, lock, 'x')
    os.close(lock)


def test_pip_writes_its_log(venv, tmp_path):
    subprocess.run([sys.executable, '-m', 'venv', venv], check=True)
    (tmp_path / 'requirements').mkdir()
    (tmp_path / 'requirements/constraints.txt').touch()
    lock = os.open(tmp_path, os.O_RDONLY)
    refused('no-such-folder', setup_env.pip, lock, '--no-index', './no-such-folder')
    os.close(lock)
    assert 'no-such-folder' in (venv / 'setup.log').read_text()


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
    slow = executable(checkout / 'python', 'echo > began; sleep 8; echo > ended')
    code = (
        'import os, signal, sys; sys.path.insert(0, "tools/misc"); import setup_env;'
        'signal.signal(signal.SIGTERM, signal.default_int_handler);'
        f'setup_env.VENV.mkdir(); sys._base_executable = {slow!r};'
        'setup_env.create_venv(setup_env.take_lock())'
    )
    command = [sys.executable, '-c', code]
    setup = subprocess.Popen(command, cwd=checkout, stderr=subprocess.DEVNULL)
    while not (checkout / 'began').exists():
        assert setup.poll() is None
        time.sleep(0.02)
    time.sleep(3)  # until the parent of a busy machine waits for its child
    setup.send_signal(number)
    setup.wait(30)
    lock = os.open(checkout, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert (checkout / 'ended').exists() == (number == signal.SIGKILL)
    os.close(lock)


@pytest.mark.parametrize('target', ['demo', 'page', 'reproduce', 'test', 'lint'])
def test_targets_run_in_the_environment_of_their_stack(target):
    """A stack has an environment of its own; `.venv` may be missing, or another."""
    made = subprocess.run(
        ['make', '-n', target, 'STACK=onedl', 'ARGS='],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert '.venv-onedl/bin/python' in made and '.venv/bin/python' not in made
