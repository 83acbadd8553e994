"""Create the environment in `.venv` and keep it whole; `make env` runs this.

A supported Python runs it and becomes that of `.venv`. The record `.venv/setup.json`
marks the folder as made here and lists the content of a finished set-up. An unfinished
one starts anew from pip's cache, which holds earlier downloads and builds. STACK=onedl
sets up the maintained fork of OpenMMLab, in `.venv-onedl`.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STACK = os.environ.get('STACK') or 'stock'
FORK = {'stock': '', 'onedl': 'onedl-'}.get(STACK)
VENV = ROOT / ('.venv' if STACK == 'stock' else f'.venv-{STACK}')
PYTHON = VENV / 'bin/python'
RECORD, LOG = VENV / 'setup.json', VENV / 'setup.log'
TMP = VENV / 'tmp'  # a killed pip leaves gigabytes behind

# Measured: the finished .venv, and the wheels that pip keeps while it installs torch.
VENV_BYTES, WHEELS_BYTES = 6.0e9, 2.5e9

OPENMMLAB = 'onedl' if FORK else 'mminstall'
NAMES = ('runtime', OPENMMLAB, 'optional', 'deploy', 'page', 'tests')
REQUIREMENTS = [f'requirements/{name}.txt' for name in NAMES]
CONSTRAINTS = f'requirements/{FORK and "onedl_"}constraints.txt'
# Compiled apart, and what the other stack would put over this one.
LEFT_OUT = r'onedl-mmcv|mmdet' if FORK else r'mmcv'
INPUTS = [CONSTRAINTS, *REQUIREMENTS, 'setup.py', 'eomt_mm/version.py', __file__]

HAS_CUDA = 'import mmcv._ext as ext; int(ext.get_compiling_cuda_version()[0])'
EVERYTHING = """
import mmcv._ext, mmcv, mmdet, mmengine, mmseg, scipy, timm, torch, torchvision
import eomt_mm.version
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none, CPU only'
print('      torch', torch.__version__, '| mmcv', mmcv.__version__, '| GPU:', gpu)
"""

# What the log of pip has, and what it means.
CAUSES = {
    'No space left on device': 'the disk is full: make room',
    r'Connection(Error| refused| broken)|ResolutionError|[Tt]imed? ?out|ProxyError|'
    'SSLError|IncompleteRead': 'no package index reached: check network and proxy',
    'Killed signal|signal terminated|bad_alloc': 'out of memory: try MAX_JOBS=1',
}


class SetupError(Exception):
    """An error that a user can mend, in one line."""


def find_compiler():
    """Return the first C++ compiler with C++17 and the headers of this Python."""
    include = sysconfig.get_path('include')
    names = [os.environ['CXX']] if os.environ.get('CXX') else ['c++', 'g++', 'clang++']
    flags = f'-std=c++17 -fsyntax-only -include vector -include Python.h -I{include}'
    for name in names:
        command = [*name.split(), *flags.split(), '-x', 'c++', os.devnull]
        found = shutil.which(command[0])
        if found and not subprocess.run(command, capture_output=True).returncode:
            return name
    raise SetupError(
        f'no C++ compiler ({", ".join(names)}) with C++17 and {include}/Python.h, '
        "needed once to build mmcv: 'apt install g++ python3-dev' or 'dnf install "
        "gcc-c++ python3-devel', or name others with CXX= and PYTHON="
    )


def compile_jobs():
    """Return the compilers at a time: MAX_JOBS, or a number by cores and memory."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    carried = min(os.cpu_count() or 1, int(memory / 1.5e9))  # for the largest file
    asked = os.environ.get('MAX_JOBS') or str(max(1, carried))
    if not asked.isdigit() or int(asked) < 1:
        raise SetupError(f'MAX_JOBS={asked}: a whole number from 1 is expected')
    return int(asked)


def check_disk():
    """Refuse to start if the disk would become full."""
    present = sum(path.lstat().st_blocks * 512 for path in VENV.rglob('*'))
    missing = max(0, VENV_BYTES - present)
    needed, free = missing + min(missing, WHEELS_BYTES), shutil.disk_usage(VENV).free
    if free < needed:
        raise SetupError(
            f'not enough disk space for {VENV}: {needed / 1e9:.1f} GB needed, '
            f'{free / 1e9:.1f} GB free; make room and run the same command again'
        )


def read_state():
    """Return the wanted record, whether `.venv` is whole, and whether it matches."""
    try:
        record = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        record = {}
    asked = os.environ.get('MMCV_CUDA')
    cuda = asked == '1' if asked else record.get('cuda', False)
    wanted = dict(cuda=cuda, python=list(sys.version_info[:2]), root=str(ROOT))
    digest = hashlib.sha256(repr(wanted).encode())
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    wanted['key'] = digest.hexdigest()
    there = [(VENV / name).exists() for name in record.get('packages', [])] or [False]
    # A moved checkout and another Python leave scripts that name the old one.
    same = all(record.get(key) == wanted[key] for key in ('python', 'root'))
    whole = same and all(there)
    return wanted, whole, whole and record.get('key') == wanted['key']


def take_lock():
    """Lock the set-up of this checkout, once another one has ended."""
    lock = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('another set-up, or the rest of a killed one, works here: waiting for it')
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def run(lock, *command, **env):
    """Run a command and return its exit status.

    The command inherits the lock: if it outlives a killed set-up, the next one waits
    instead of writing into the same packages.
    """
    clean = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    clean |= dict(TMPDIR=str(TMP), PYTHONNOUSERSITE='1', PIP_USER='0', **env)
    clean['PATH'] = f'{PYTHON.parent}{os.pathsep}{os.environ["PATH"]}'
    group = dict(pass_fds=[lock], start_new_session=True)
    process = subprocess.Popen(command, cwd=ROOT, env=clean, **group)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def can_run(lock, code):
    """Whether the Python of `.venv` runs some code without an error."""
    silent = f'import sys; sys.stderr = open({os.devnull!r}, "w"); '
    return run(lock, PYTHON, '-I', '-c', silent + code) == 0


def pip(lock, *arguments, **env):
    """Run `pip install`; explain a failure in one line, after pip's output."""
    LOG.unlink(missing_ok=True)  # of the step before
    flags = ['--disable-pip-version-check', '--no-input', '--log', LOG]
    command = [PYTHON, '-m', 'pip', 'install', *flags, '-c', CONSTRAINTS, *arguments]
    if status := run(lock, *command, **env):
        text = LOG.read_text(errors='replace') if LOG.exists() else ''
        if shutil.disk_usage(VENV).free < 10e6:
            text = 'No space left on device'  # which the log had no room for
        errors = re.findall(r'ERROR: .*|\S+:\d+: .*error: .*', text)
        causes = [cause for sign, cause in CAUSES.items() if re.search(sign, text)]
        last = (causes[:1] or errors or [f'pip failed, status {status}'])[-1]
        raise SetupError(f'{last}; log: {LOG}')


def needed():
    """Return the lines of all requirements that pip installs at once."""
    lines = [line for name in REQUIREMENTS for line in (ROOT / name).open()]
    lines = [line.partition('#')[0].strip() for line in lines]
    return [line for line in lines if line and not re.match(LEFT_OUT, line)]


def create_venv(lock):
    """Create a fresh `.venv`, and remove an earlier one except its record."""
    for path in {*VENV.iterdir()} - {RECORD}:
        is_folder = path.is_dir() and not path.is_symlink()
        shutil.rmtree(path) if is_folder else path.unlink()
    # This Python may be that of `.venv` itself.
    if status := run(lock, sys._base_executable, '-m', 'venv', VENV):
        raise SetupError(f'{sys._base_executable} -m venv failed, status {status}')


def install_mmcv(lock, compiler, jobs, cuda):
    """Compile mmcv, or take the wheel in pip's cache."""
    env = {'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(jobs), 'CXX': compiler}
    # mmcv builds CUDA operators where it sees a GPU; none is needed unless asked for.
    env.update({'FORCE_CUDA': '1'} if cuda else {'CUDA_VISIBLE_DEVICES': ''})
    # pip's cache knows neither which torch a wheel was built for nor about CUDA.
    for again in ([], ['--no-cache-dir', '--force-reinstall']):
        pip(lock, f'{FORK}mmcv', '--no-build-isolation', '--no-deps', *again, **env)
        if can_run(lock, HAS_CUDA if cuda else 'import mmcv._ext'):
            return
        print('      mmcv was built for another torch, or without CUDA')
    raise SetupError(f'mmcv was built, but its operators do not load; log: {LOG}')


def build(lock, wanted, whole):
    """Create the missing parts; the lock is held."""
    compiler, jobs = find_compiler(), compile_jobs()
    check_disk()
    print('setting up {} with Python {}.{}'.format(VENV.name, *wanted['python']))
    RECORD.write_text(json.dumps(dict(cuda=wanted['cuda'])))
    if not whole:
        create_venv(lock)
    shutil.rmtree(TMP, ignore_errors=True)
    TMP.mkdir()

    print('[1/5] pip, setuptools, ninja: seconds')
    pip(lock, 'pip', 'setuptools', 'wheel', 'ninja', 'packaging')
    print('[2/5] torch: 2 GB, 2 to 10 minutes; less where pip has it cached')
    pip(lock, 'torch', 'torchvision')
    print('[3/5] OpenMMLab, timm, test tools: 1 to 3 minutes')
    pip(lock, *needed())
    if not can_run(lock, 'import cv2'):
        # Servers without libGL: the headless build brings the same cv2.
        run(lock, PYTHON, '-m', 'pip', 'uninstall', '-y', 'opencv-python')
        pip(lock, '--no-deps', '--force-reinstall', 'opencv-python-headless')
    minutes = max(1, round(20 / jobs))  # one core takes 20
    print(f'[4/5] mmcv: compiled once, about {minutes} minutes with {jobs} at a time')
    install_mmcv(lock, compiler, jobs, wanted['cuda'])
    print('[5/5] eomt_mm itself, and importing everything: seconds')
    pip(lock, '--no-build-isolation', '--no-deps', '-e', '.')
    if run(lock, PYTHON, '-I', '-W', 'ignore', '-c', EVERYTHING):
        raise SetupError('what is installed does not load; if it stays, rm -rf .venv')
    shutil.rmtree(TMP)
    (site,) = VENV.glob('lib/python*/site-packages')
    packages = [str(p.relative_to(VENV)) for p in site.iterdir() if p.name[0] != '_']
    RECORD.write_text(json.dumps(dict(wanted, packages=packages)))


def main():
    """Set up `.venv`; return at once if it is complete."""
    if FORK is None:
        raise SetupError(f'STACK={STACK}: stock or onedl is expected')
    *wanted, ready = read_state()
    if not ready:
        lock = take_lock()
        VENV.mkdir(exist_ok=True)
        if any(VENV.iterdir()) and not RECORD.exists():
            raise SetupError(
                f'{VENV} was not made by this set-up (no setup.json in it): move it '
                'away or remove it, then run the same command again'
            )
        *wanted, ready = read_state()  # another set-up may have ended in between
        if not ready:
            build(lock, *wanted)
    print(f'{VENV.name} is ready')


if __name__ == '__main__':
    # SIGTERM ends the set-up as Ctrl-C does: pip's processes end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        print('\ninterrupted: give the same command again', file=sys.stderr)
        sys.exit(130)
    except (SetupError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
