"""Creates the environment in `.venv` and keeps it whole; run through `make env`.

Any Python from 3.6 may run this file, so that an old one can still say in one line
what is wrong. Every step may be repeated: pip finds what is there. The record
`.venv/setup.json` marks the folder as made here and lists what a finished set-up holds.
"""

import csv
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(ROOT, '.venv')
PYTHON = os.path.join(VENV, 'bin', 'python')
RECORD, LOG = os.path.join(VENV, 'setup.json'), os.path.join(VENV, 'setup.log')
TMP = os.path.join(VENV, 'tmp')  # a killed pip leaves gigabytes behind

VERSIONS = ([3, 11], [3, 12], [3, 10])  # the stack was run most on the first
# Measured: the finished .venv, and the wheels that pip keeps while it installs torch.
VENV_BYTES, WHEELS_BYTES = 6.0e9, 2.5e9
MMCV_CORE_MINUTES = 20

REQUIREMENTS = [f'requirements/{name}.txt' for name in ('runtime', 'optional', 'tests')]
CONSTRAINTS = 'requirements/constraints.txt'
INPUTS = [CONSTRAINTS, *REQUIREMENTS, 'setup.py', 'eomt_mm/version.py', __file__]

PROBE = """
import json, sys, sysconfig
base, include = getattr(sys, '_base_executable', None), sysconfig.get_path('include')
print(json.dumps([sys.version_info[:2], sys.prefix, base, include]))
"""
HAS_CUDA = 'import mmcv._ext as ext; int(ext.get_compiling_cuda_version()[0])'
EVERYTHING = """
import mmcv._ext, mmcv, mmdet, mmengine, mmseg, scipy, timm, torch, torchvision
import eomt_mm.version
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none, CPU only'
print('      torch', torch.__version__, '| mmcv', mmcv.__version__, '| GPU:', gpu)
"""

# What pip and ninja write that shows how far they are.
SIGN = re.compile(r'\s*(\[\d+/\d+\]|(Progress|Collecting|Downloading|Install|Build).*)')
CAUSES = {
    'No space left on device': 'the disk is full: make room',
    'ConnectionError|ResolutionError|Timeout|timed out|ProxyError|SSLError|'
    'IncompleteRead|Connection (refused|broken)': (
        'no package index reached: check network and proxy'
    ),
    'Killed signal|signal terminated|bad_alloc': 'out of memory: try MAX_JOBS=1',
}


class SetupError(Exception):
    """What a user can mend, in one line."""


def probe(name):
    """What an interpreter says about itself; None where it does not run.

    Running it matters: pyenv puts a `python3.12` on PATH that only fails.
    """
    try:
        silent = {'stdin': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
        answer = subprocess.check_output([name, '-c', PROBE], timeout=60, **silent)
        return json.loads(answer.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def choose_python(asked):
    """Probes the interpreter that PYTHON= names, else finds a supported one."""
    names = ['python{}.{}'.format(*version) for version in VERSIONS]
    unfit = []
    for name in [asked] if asked else [PYTHON, sys.executable, *names]:
        found = probe(name)
        if found and found[0] in VERSIONS:
            return found
        if found or asked:
            is_what = 'is Python {}.{}'.format(*found[0]) if found else 'does not run'
            unfit.append(f'{name} {is_what}')
    raise SetupError(
        f'{", ".join(unfit) or "no Python runs here"}; Python 3.10 to 3.12 is needed: '
        'install one, or name it with PYTHON=/path/to/python3.11'
    )


def find_compiler(include):
    """The first C++ compiler that takes C++17 and the headers of this Python."""
    names = [os.environ['CXX']] if os.environ.get('CXX') else ['c++', 'g++', 'clang++']
    flags = [
        '-std=c++17',
        '-fsyntax-only',
        '-include',
        'Python.h',
        '-include',
        'vector',
    ]
    for name in names:
        command = [*name.split(), '-I' + include, *flags, '-x', 'c++', os.devnull]
        try:
            subprocess.check_output(command, stderr=subprocess.STDOUT)
            return name
        except (OSError, subprocess.SubprocessError):
            pass
    raise SetupError(
        f'no C++ compiler ({", ".join(names)}) with C++17 and {include}/Python.h, '
        "needed once to build mmcv: 'apt install g++ python3-dev' or 'dnf install "
        "gcc-c++ python3-devel', or name others with CXX= and PYTHON="
    )


def compile_jobs():
    """Compilers at a time: MAX_JOBS, or what cores and memory carry."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    carried = min(os.cpu_count() or 1, int(memory / 1.5e9))  # for the largest file
    asked = os.environ.get('MAX_JOBS') or str(max(1, carried))
    if not asked.isdigit() or int(asked) < 1:
        raise SetupError(f'MAX_JOBS={asked}: a whole number from 1 is expected')
    return int(asked)


def check_disk():
    """Refuses to start what would fill the disk."""
    paths = (
        os.path.join(top, name) for top, _, names in os.walk(VENV) for name in names
    )
    missing = max(0, VENV_BYTES - sum(os.lstat(path).st_blocks * 512 for path in paths))
    needed, free = missing + min(missing, WHEELS_BYTES), shutil.disk_usage(VENV).free
    if free < needed:
        raise SetupError(
            f'not enough disk space for {VENV}: {needed / 1e9:.1f} GB needed, '
            f'{free / 1e9:.1f} GB free; make room and run the same command again'
        )


def is_whole(dist_info):
    """Whether a package's files are all there at full size."""
    try:
        with open(os.path.join(dist_info, 'RECORD'), newline='') as file:
            rows = [row for row in csv.reader(file) if not row[0].endswith('.pyc')]
        site = os.path.dirname(dist_info)
        sizes = {row[0]: os.stat(os.path.join(site, row[0])).st_size for row in rows}
    except OSError:
        return False
    return all(size in ('', str(sizes[name])) for name, _, size in rows)


def forget_damaged(site):
    """Removes what makes pip take a damaged package for installed."""
    for path in glob.glob(os.path.join(site, '~*')):  # a killed pip leaves these
        shutil.rmtree(path)
    for path in glob.glob(os.path.join(site, '*.dist-info')):
        if not is_whole(path):
            print('      damaged, installed again:', os.path.basename(path))
            shutil.rmtree(path)


def read_state():
    """What is wanted and what is there.

    Returns:
        tuple: The chosen interpreter, its folder of packages, whether mmcv gets CUDA,
        the key (a hash of all the environment depends on), and whether all is done.
    """
    try:
        with open(RECORD) as file:
            record = json.load(file)
    except (OSError, ValueError):
        record = {}
    python = choose_python(os.environ.get('PYTHON'))
    site = os.path.join(VENV, 'lib', 'python{}.{}'.format(*python[0]), 'site-packages')
    asked = os.environ.get('MMCV_CUDA')
    cuda = asked == '1' if asked else record.get('cuda', False)
    digest = hashlib.sha256(repr((python[0], cuda, ROOT)).encode())
    for name in INPUTS:
        with open(os.path.join(ROOT, name), 'rb') as file:
            digest.update(file.read())
    key, packages = digest.hexdigest(), record.get('packages', [])
    there = [os.path.exists(os.path.join(site, name)) for name in packages]
    return (
        python,
        site,
        cuda,
        key,
        record.get('key') == key and any(there) and all(there),
    )


def write_record(**record):
    """Writes in one move: an interrupted write leaves the old record."""
    with open(RECORD + '.new', 'w') as file:
        json.dump(record, file)
    os.replace(RECORD + '.new', RECORD)


def take_lock():
    """Locks the set-up of this checkout, when another one here has ended."""
    lock = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('another set-up, or the rest of a killed one, works here: waiting for it')
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def run(lock, *command, **env):
    """Runs a command: all it writes goes to the log, how far it is to the screen.

    The lock is handed on: a command that outlives a killed set-up keeps the next one
    waiting, instead of both writing into the same packages.
    """
    clean = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    clean.update(TMPDIR=TMP, PYTHONNOUSERSITE='1', PYTHONUNBUFFERED='1', PIP_USER='0')
    clean.update(PATH=os.path.dirname(PYTHON) + os.pathsep + os.environ['PATH'], **env)
    output = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    process = subprocess.Popen(
        command, cwd=ROOT, env=clean, pass_fds=[lock], start_new_session=True, **output
    )
    frame, pause = ('\r\033[K{}', 0.5) if sys.stdout.isatty() else ('{}\n', 20)
    lines, began, shown = [], time.monotonic(), 0
    try:
        with open(LOG, 'a', buffering=1) as log:
            for line in process.stdout:
                lines.append(line.decode(errors='replace').rstrip())
                log.write(lines[-1] + '\n')
                seconds = int(time.monotonic() - began)
                sign = SIGN.match(lines[-1])
                # Nothing follows 'Installing' for a minute or more: always shown.
                due = seconds - shown >= pause or 'Installing' in lines[-1]
                if sign and due:
                    shown = seconds
                    text = f'      {seconds // 60}:{seconds % 60:02d}  {sign.group(1)}'
                    print(frame.format(text[:79]), end='', flush=True)
        return process.wait(), lines
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def pip(lock, *arguments, **env):
    """Runs `pip install`; explains a failure in one line."""
    flags = ['--disable-pip-version-check', '--no-input']
    command = [PYTHON, '-m', 'pip', 'install', *flags, '-c', CONSTRAINTS, *arguments]
    status, lines = run(lock, *command, **env)
    if status:
        errors = [
            line for line in lines if re.search(r'^ERROR: |:\d+: .*error: ', line)
        ]
        for pattern, cause in CAUSES.items():
            if re.search(pattern, '\n'.join(lines)):
                errors = [cause]
        last = (errors or lines or [f'pip failed, status {status}'])[-1]
        raise SetupError(f'{last}; log: {LOG}')


def create_venv(lock, base):
    """A fresh `.venv`: what an earlier set-up made goes, but for record and log."""
    for path in set(glob.glob(os.path.join(VENV, '*'))) - {RECORD, LOG}:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    status, lines = run(lock, base, '-m', 'venv', VENV)
    if status:
        raise SetupError(f'{base} -m venv failed: {" ".join(lines).strip()}')


def install_mmcv(lock, compiler, jobs, cuda):
    """Compiles mmcv, or takes the wheel that pip kept from the last time."""
    env = {'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(jobs), 'CXX': compiler}
    # mmcv builds CUDA operators where it sees a GPU; none is needed unless asked for.
    env.update({'FORCE_CUDA': '1'} if cuda else {'CUDA_VISIBLE_DEVICES': ''})
    build = ['mmcv', '-v', '--no-build-isolation', '--no-deps']
    check = [PYTHON, '-I', '-c', HAS_CUDA if cuda else 'import mmcv._ext']
    pip(lock, *build, **env)
    if run(lock, *check)[0]:
        # pip's cache knows neither which torch a wheel was built for nor about CUDA.
        print(
            '      mmcv was built for another torch, or without CUDA: compiling again'
        )
        pip(lock, *build, '--no-cache-dir', '--force-reinstall', **env)
    if run(lock, *check)[0]:
        raise SetupError(f'mmcv was built, but its operators do not load; log: {LOG}')


def build(lock, python, site, cuda, key):
    """Makes what is missing; the lock is held."""
    version, _, base, include = python
    compiler, jobs = find_compiler(include), compile_jobs()
    check_disk()
    print('setting up .venv with Python {}.{}; log: .venv/setup.log'.format(*version))
    write_record(cuda=cuda)
    shutil.rmtree(TMP, ignore_errors=True)
    forget_damaged(site)
    there = probe(PYTHON)
    # Without pip's record, `venv` was interrupted or pip is damaged.
    has_pip = glob.glob(os.path.join(site, 'pip-*.dist-info'))
    if not has_pip or not there or there[:2] != [version, VENV]:
        create_venv(lock, base)
    os.makedirs(TMP)

    print('[1/5] pip, setuptools, ninja: seconds')
    pip(lock, 'pip', 'setuptools', 'wheel', 'ninja', 'packaging')
    print('[2/5] torch: 2 GB to download, 2 to 10 minutes; seconds where it is there')
    # The pip that comes with Python may be too old for 'raw'; by now it is new.
    pip(lock, '--progress-bar=raw', 'torch', 'torchvision')
    print('[3/5] OpenMMLab, timm, test tools: 1 to 3 minutes')
    needed = [word for name in REQUIREMENTS for word in ('-r', name)]
    pip(lock, *needed, 'mmengine', 'mmsegmentation')
    if run(lock, PYTHON, '-I', '-c', 'import cv2')[0]:
        # Servers without libGL: the headless build brings the same cv2.
        run(lock, PYTHON, '-m', 'pip', 'uninstall', '-y', 'opencv-python')
        pip(lock, '--no-deps', '--force-reinstall', 'opencv-python-headless')
    minutes = max(1, round(MMCV_CORE_MINUTES / jobs))
    print(
        f'[4/5] mmcv: compiled once, about {minutes} minutes with {jobs} at a time; '
        'seconds where pip has it cached'
    )
    install_mmcv(lock, compiler, jobs, cuda)
    print('[5/5] eomt_mm itself, and importing everything: seconds')
    pip(lock, '--no-build-isolation', '--no-deps', '-e', '.')
    status, lines = run(lock, PYTHON, '-I', '-W', 'ignore', '-c', EVERYTHING)
    if status:
        raise SetupError(f'{lines[-1]}; log: {LOG}; if it stays, rm -rf .venv')
    print(lines[-1])
    shutil.rmtree(TMP)
    packages = [name for name in os.listdir(site) if name != '__pycache__']
    write_record(key=key, cuda=cuda, packages=packages)


def main():
    """Leaves at once where all is there."""
    *wanted, ready = read_state()
    if not ready:
        lock = take_lock()
        os.makedirs(VENV, exist_ok=True)
        ours = (os.path.basename(path) for path in (RECORD, RECORD + '.new'))
        if not os.path.exists(RECORD) and set(os.listdir(VENV)) - set(ours):
            raise SetupError(
                f'{VENV} was not made by this set-up (no setup.json in it): move it '
                'away or remove it, then run the same command again'
            )
        *wanted, ready = read_state()  # another set-up may have ended in between
        if not ready:
            build(lock, *wanted)
    print('.venv is ready')


def interrupt(*_):
    """SIGTERM ends the set-up as Ctrl-C does: pip's processes end with it."""
    raise KeyboardInterrupt


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, interrupt)
    print = functools.partial(print, flush=True)
    try:
        main()
    except KeyboardInterrupt:
        print('\ninterrupted: the same command goes on from here', file=sys.stderr)
        sys.exit(130)
    except (SetupError, OSError) as error:
        full = getattr(error, 'errno', None) == errno.ENOSPC
        cause = 'the disk is full: make room, run it again' if full else error
        print(f'error: {cause}', file=sys.stderr)
        sys.exit(2)
