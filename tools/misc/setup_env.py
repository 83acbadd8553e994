"""Creates the environment in `.venv` and keeps it whole; run through `make env`.

Standard library only, and no syntax newer than Python 3.6, so that an old Python can
still say in one line what is wrong. Every step may be run again. The stamp lists the
finished steps, under a key of all they depend on; a complete stamp is all that the
next start reads.
"""

import argparse
import csv
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

from setup_checks import (
    SetupError,
    check_compiler,
    check_disk,
    check_venv_module,
    choose_python,
    compile_jobs,
    tree_bytes,
)
from setup_pip import Runner

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(ROOT, '.venv')
PYTHON = os.path.join(VENV, 'bin', 'python')
STAMP = os.path.join(VENV, 'setup.json')
LOG = os.path.join(VENV, 'setup.log')

# 3.11 first: the stack was run most on it.
NAMES = ('python3.11', 'python3.12', 'python3.10')

# Measured: the finished .venv, and the wheels that pip keeps in .venv/tmp while it
# installs torch with its CUDA libraries.
VENV_BYTES = 6.0e9
WHEELS_BYTES = 2.5e9
MMCV_CORE_MINUTES = 12

INPUTS = (
    'requirements/constraints.txt',
    'requirements/runtime.txt',
    'requirements/optional.txt',
    'requirements/tests.txt',
    'setup.py',
    'eomt_mm/version.py',
    'tools/misc/setup_env.py',
)
CONSTRAINTS = ('-c', 'requirements/constraints.txt')
INSTALL = ('install', '--progress-bar', 'raw', *CONSTRAINTS)
PACKAGES = (
    *('-r', 'requirements/runtime.txt'),
    *('-r', 'requirements/optional.txt'),
    *('-r', 'requirements/tests.txt'),
    *('mmengine', 'mmsegmentation'),
)
CHECK_MMCV = 'import mmcv._ext as ext; print(ext.get_compiling_cuda_version())'
CHECK_ALL = """
import mmcv._ext, mmcv, mmdet, mmengine, mmseg, scipy, timm, torch, torchvision
import eomt_mm.version
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none, CPU only'
print('torch', torch.__version__, '| mmcv', mmcv.__version__, '| GPU:', gpu)
"""


def say(text):
    """Prints at once, also into a pipe."""
    print(text, flush=True)


# The stamp


def stamp_key(version, cuda, root=ROOT, inputs=INPUTS):
    """Hash of all the environment depends on; the place too, for venvs cannot move."""
    digest = hashlib.sha256(repr((tuple(version), cuda, root)).encode())
    for name in inputs:
        with open(os.path.join(root, name), 'rb') as file:
            digest.update(name.encode() + b'\0' + file.read())
    return digest.hexdigest()


def read_stamp(path=STAMP):
    """The stamp, or an empty dict where it is missing or cut short."""
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_stamp(stamp, path=STAMP):
    """Writes the stamp in one move: an interrupted write leaves the old one."""
    with open(path + '.new', 'w') as file:
        json.dump(stamp, file)
    os.replace(path + '.new', path)


def complete(stamp, key, site):
    """Whether all steps are done for this key and no package has gone since."""
    if stamp.get('key') != key or 'packages' not in stamp or not os.path.exists(PYTHON):
        return False
    return set(stamp['packages']) <= set(listdir(site))


def listdir(path):
    """Entries of a directory in order; none where there is no directory."""
    return sorted(os.listdir(path)) if os.path.isdir(path) else []


def site_packages(version):
    """Where the packages of `.venv` lie."""
    return os.path.join(VENV, 'lib', 'python{}.{}'.format(*version), 'site-packages')


# Repair


def forget_damaged(site):
    """Removes the records of packages with missing or short files.

    pip then takes them for not installed, and installs just these again.

    Returns:
        list[str]: Names of the packages.
    """
    damaged = []
    for entry in listdir(site):
        path = os.path.join(site, entry)
        if entry.startswith('~'):  # left behind by a pip that was killed
            shutil.rmtree(path, ignore_errors=True)
        elif entry.endswith('.dist-info') and not whole(path):
            shutil.rmtree(path)
            damaged.append(entry.split('-')[0])
    return damaged


def whole(dist_info):
    """Whether every file that a package's RECORD lists is there at full size."""
    try:
        with open(os.path.join(dist_info, 'RECORD'), newline='') as file:
            rows = list(csv.reader(file))
        for name, _, size in rows:
            if not name.endswith('.pyc'):
                found = os.stat(os.path.join(dist_info, '..', name)).st_size
                if size and int(size) != found:
                    return False
        return bool(rows)
    except (OSError, ValueError):
        return False


# The steps


def install_tools(runner, options):
    """Build tools; with `--no-build-isolation` mmcv sees just these."""
    # The pip that comes with Python may be too old for '--progress-bar raw'.
    tools = ('pip', 'setuptools', 'wheel', 'ninja', 'packaging')
    runner.pip('install', *CONSTRAINTS, *tools)


def install_torch(runner, options):
    """PyTorch as the package index has it: with CUDA on Linux."""
    runner.pip(*INSTALL, 'torch', 'torchvision')


def install_packages(runner, options):
    """Everything else that comes as a wheel."""
    runner.pip(*INSTALL, *PACKAGES)
    if not runner.ask('import cv2')[0]:
        # Servers without libGL: the headless build brings the same cv2.
        runner.pip('uninstall', '-y', 'opencv-python')
        runner.pip(*INSTALL, '--no-deps', '--force-reinstall', 'opencv-python-headless')


def install_mmcv(runner, options):
    """Compiles mmcv, or takes the wheel pip kept from the last time."""
    env = {'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(options.jobs), 'CXX': options.compiler}
    # mmcv builds CUDA operators where it sees a GPU; none is needed unless asked for.
    env.update({'FORCE_CUDA': '1'} if options.cuda else {'CUDA_VISIBLE_DEVICES': ''})
    install = (*INSTALL, '-v', '--no-build-isolation', '--no-deps')
    runner.pip(*install, 'mmcv', env=env)
    if not mmcv_works(runner, options.cuda):
        # pip's cache knows neither which torch a wheel was built for nor about CUDA.
        minutes = compile_minutes(options.jobs)
        say('      mmcv was built for another torch, or without CUDA: compiling it')
        say(f'      again, about {minutes} minutes')
        runner.pip(*install, '--no-cache-dir', '--force-reinstall', 'mmcv', env=env)
        if not mmcv_works(runner, options.cuda):
            raise SetupError('mmcv was built, but its operators do not load')


def mmcv_works(runner, cuda):
    """Whether mmcv's operators load, with CUDA if wanted."""
    loads, compiled = runner.ask(CHECK_MMCV)
    return loads and not (cuda and compiled == 'not available')


def install_project(runner, options):
    """The package itself, editable."""
    runner.pip('install', '--no-build-isolation', '--no-deps', '-e', '.')


def check_all(runner, options):
    """Imports everything together."""
    imported, line = runner.ask(CHECK_ALL)
    if not imported:
        raise SetupError(f'{line} (log: .venv/setup.log); if it stays, rm -rf .venv')
    say('      ' + line)


def compile_minutes(jobs):
    """How long mmcv takes on an otherwise idle machine."""
    return max(1, round(MMCV_CORE_MINUTES / jobs))


def make_steps(jobs):
    """(name, announcement, function) of each step, in order."""
    minutes = compile_minutes(jobs)
    return (
        ('tools', 'pip, setuptools, ninja: seconds', install_tools),
        ('torch', 'torch: 2 GB to download, 2 to 10 minutes', install_torch),
        ('packages', 'OpenMMLab, timm, test tools: 1 to 3 minutes', install_packages),
        (
            'mmcv',
            f'mmcv: compiled once, about {minutes} minutes with {jobs} '
            'at a time; seconds where pip has it cached',
            install_mmcv,
        ),
        ('project', 'eomt_mm itself: seconds', install_project),
        ('check', 'importing everything: seconds', check_all),
    )


# The whole


def lock_venv():
    """Takes the lock on `.venv`, after any other set-up there has ended."""
    os.makedirs(VENV, exist_ok=True)
    lock = os.open(VENV, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        say('another set-up, or the rest of a killed one, works here: waiting for it')
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def usable(version):
    """Whether `.venv` has the wanted Python, in this place, with a pip that runs."""
    code = 'import sys, pip; print(*sys.version_info[:2], sys.prefix)'
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.DEVNULL}
    try:
        out = subprocess.run([PYTHON, '-c', code], **pipes).stdout.decode()
    except OSError:
        return False
    return out.strip() == '{} {} {}'.format(*version, VENV)


def create_venv():
    """A fresh `.venv`; what was in it goes."""
    for entry in os.scandir(VENV):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    command = [sys.executable, '-m', 'venv', VENV]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        words = made.stdout.decode(errors='replace').split('\n')
        raise SetupError(f'{" ".join(command)} failed: {" ".join(words).strip()}')


def build(options):
    """Does what is missing, with this interpreter and under the lock."""
    lock = lock_venv()
    version = tuple(sys.version_info[:2])
    key, site = stamp_key(version, options.cuda), site_packages(version)
    stamp = read_stamp()
    if complete(stamp, key, site):
        return
    check_venv_module()
    options.compiler = check_compiler(options.cuda)
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    options.jobs = compile_jobs(os.environ, os.cpu_count() or 1, memory)

    damaged = forget_damaged(site)
    fresh = not usable(version)
    if fresh or damaged or stamp.get('key') != key or 'packages' in stamp:
        stamp = {'key': key, 'version': version, 'cuda': options.cuda, 'done': []}
    shutil.rmtree(os.path.join(VENV, 'tmp'), ignore_errors=True)
    missing = max(0, VENV_BYTES - (0 if fresh else tree_bytes(VENV)))
    check_disk(VENV, missing + min(missing, WHEELS_BYTES))

    say('setting up .venv with Python {}.{}; log: .venv/setup.log'.format(*version))
    if fresh and os.path.exists(PYTHON):
        say('      the old one was for another Python or another place: made afresh')
    elif damaged and not fresh:
        say('      damaged, installed again: ' + ', '.join(damaged))
    if fresh:
        create_venv()
    steps = make_steps(options.jobs)
    with open(LOG, 'a') as log:
        runner = Runner(VENV, log, lock)
        for number, (name, note, function) in enumerate(steps, 1):
            if name not in stamp['done']:
                say(f'[{number}/{len(steps)}] {note}')
                function(runner, options)
                stamp['done'].append(name)
                write_stamp(stamp)
    stamp['packages'] = [name for name in listdir(site) if name != '__pycache__']
    write_stamp(stamp)


def candidates():
    """Interpreters to try: that of the existing `.venv`, this one, the usual names."""
    try:
        with open(os.path.join(VENV, 'pyvenv.cfg')) as file:
            home = re.search(r'^home\s*=\s*(.+)$', file.read(), re.M).group(1)
        return [os.path.join(home.strip(), 'python3'), sys.executable, *NAMES]
    except (OSError, AttributeError):
        return [sys.executable, *NAMES]


def main(args):
    """Leaves at once where all is there; else hands over to the chosen Python."""
    parser = argparse.ArgumentParser(description='Creates the environment in .venv')
    parser.add_argument('--python', default='', help='the Python to use, 3.10 to 3.12')
    parser.add_argument(
        '--mmcv-cuda',
        choices=('', '0', '1'),
        default='',
        help="compile mmcv's CUDA operators; by default as the last time, at first not",
    )
    parser.add_argument('--chosen', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    stamp = read_stamp()
    options.cuda = stamp.get('cuda', False)
    if options.mmcv_cuda:
        options.cuda = options.mmcv_cuda == '1'

    if not options.chosen:
        python, version = None, stamp.get('version')
        if options.python or not version:
            python, version = choose_python(options.python, candidates())
        key = stamp_key(version, options.cuda)
        if not complete(stamp, key, site_packages(version)):
            python = python or choose_python('', candidates())[0]
            cuda = str(int(options.cuda))
            script = os.path.abspath(__file__)
            os.execvp(python, [python, script, '--chosen', '--mmcv-cuda', cuda])
    else:
        build(options)
    say('.venv is ready')


def interrupt(*_):
    """SIGTERM ends the set-up as Ctrl-C does: pip's processes end with it."""
    raise KeyboardInterrupt


def fail(text, code=2):
    """Ends with one line."""
    print(text, file=sys.stderr)
    sys.exit(code)


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, interrupt)
    try:
        main(sys.argv[1:])
    except SetupError as error:
        fail(f'error: {error}')
    except KeyboardInterrupt:
        fail('\ninterrupted: the same command goes on from here', code=130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            fail('error: the disk is full: make room, run the same command again')
        fail(f'error: {error}')
