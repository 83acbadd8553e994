"""What `setup_env.py` checks before anything slow starts: Python, disk, compiler.

Standard library only, and no syntax newer than Python 3.6.
"""

import os
import shutil
import subprocess
import sys
import sysconfig

OLDEST, NEWEST = (3, 10), (3, 12)


class SetupError(Exception):
    """What a user can mend, in one line."""


def probe(python):
    """(major, minor) of an interpreter, by running it; None where it does not run.

    Running it matters: pyenv puts a `python3.12` on PATH that only fails.
    """
    command = [python, '-c', 'import sys; print(*sys.version_info[:2])']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.DEVNULL}
    try:
        out = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60, **pipes)
        return tuple(int(number) for number in out.stdout.split()) or None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def choose_python(asked, candidates, probe=probe):
    """The interpreter to build `.venv` with.

    Args:
        asked (str): What the user named with PYTHON=, or ''.
        candidates (list[str]): Interpreters to try in order when nothing was named.
        probe (callable): Interpreter -> (major, minor) or None.

    Returns:
        tuple[str, tuple[int, int]]: The interpreter and its version.

    Raises:
        SetupError: If the named one, or every candidate, is unfit.
    """
    found = []
    for python in [asked] if asked else candidates:
        version = probe(python)
        if version and OLDEST <= version <= NEWEST:
            return python, version
        if version:
            found.append(f'{python} is Python {version[0]}.{version[1]}')
        elif asked:
            found.append(f'{python} does not run')
    raise SetupError(
        f'{", ".join(found) or "no Python runs here"}; Python 3.10 to 3.12 is needed: '
        'install one, or name it with PYTHON=/path/to/python3.11'
    )


def check_venv_module():
    """Debian ships Python without `venv` and `ensurepip`."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(
            f'{sys.executable} has no venv module: install it, e.g. '
            "'apt install python{}.{}-venv', or name another "
            'PYTHON='.format(*sys.version_info)
        ) from None


def tree_bytes(path):
    """What a directory takes on disk, as `du` counts."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def check_disk(path, needed, usage=shutil.disk_usage):
    """Refuses to start what would fill the disk.

    Args:
        path (str): Directory to be written to.
        needed (float): Bytes.
        usage (callable): Directory -> its file system's space, as in `shutil`.
    """
    free = usage(path).free
    if free < needed:
        raise SetupError(
            f'not enough disk space for {path}: {needed / 1e9:.1f} GB needed, '
            f'{free / 1e9:.1f} GB free; make room and run the same command again'
        )


def find_compiler(environ, which=shutil.which):
    """The C++ compiler that torch's builder will be told to use."""
    names = [environ['CXX']] if environ.get('CXX') else ['c++', 'g++', 'clang++']
    for name in names:
        if which(name.split()[0]):
            return name
    raise SetupError(
        f'no C++ compiler ({", ".join(names)}) on PATH, needed once to build mmcv: '
        "install one, e.g. 'apt install g++' or 'dnf install gcc-c++'"
    )


def check_compiler(cuda):
    """Compiles one line, without and with Python's headers.

    Args:
        cuda (bool): Whether nvcc is needed too.

    Returns:
        str: The compiler.
    """
    compiler = find_compiler(os.environ)
    include = sysconfig.get_path('include')
    headers = 'python{}.{}-dev'.format(*sys.version_info)
    for header, cure in (
        ('vector', f'{compiler} cannot compile C++17: install it anew, or set CXX'),
        (
            'Python.h',
            f"no Python.h in {include}: install this Python's headers, "
            f"e.g. 'apt install {headers}', or name another PYTHON=",
        ),
    ):
        command = [*compiler.split(), '-x', 'c++', '-std=c++17', '-fsyntax-only']
        out = subprocess.run(
            [*command, '-I' + include, '-'],
            input=f'#include <{header}>\n'.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if out.returncode:
            raise SetupError(cure)
    home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
    if cuda and not (shutil.which('nvcc') or os.path.exists(home + '/bin/nvcc')):
        raise SetupError('MMCV_CUDA=1 needs nvcc: set CUDA_HOME, or leave it out')
    return compiler


def compile_jobs(environ, cores, memory):
    """Compilers at a time.

    Args:
        environ (Mapping[str, str]): MAX_JOBS in it wins.
        cores (int): Processor cores.
        memory (float): Bytes of memory; one of mmcv's files takes up to 1.5 GB.

    Returns:
        int: As many as cores and memory carry, at least one.
    """
    asked = environ.get('MAX_JOBS')
    if not asked:
        return max(1, min(cores, int(memory / 1.5e9)))
    if not asked.isdigit() or int(asked) < 1:
        raise SetupError(f'MAX_JOBS={asked}: a whole number from 1 is expected')
    return int(asked)
