"""How a tool ends: 0, one line and status 2, or a traceback.

What a user can mend is told in one line. Everything else is a defect of the program
and keeps its traceback.
"""

import errno
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import is_distributed

from eomt_mm.cli.processes import part
from eomt_mm.errors import UserError
from eomt_mm.pixel_limit import too_large

USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, what shells report
_HANGUP = getattr(signal, 'SIGHUP', None)  # not on Windows
_ENDINGS = [s for s in (signal.SIGINT, signal.SIGTERM, _HANGUP) if s]

# MMEngine before 0.10.5 put the class that was being built in front of each message,
# once per level of nesting.
_REGISTRY_PREFIX = re.compile(r'^(?:(?:class|function) `[^`]*` in \S+: )+')
# PyTorch re-raises a worker's exception with the worker's traceback as its message.
_WORKER = re.compile(r'^Caught \w+ in DataLoader worker process \d+\.')
_WORKER_USER_ERROR = re.compile(r'^(?:\w+\.)*UserError: ', re.MULTILINE)
_MISSING_DATA = re.compile(
    r"No such file or directory: '([^']+\.(?:jpe?g|png|tiff?|bmp|webp|json|txt))'",
    re.IGNORECASE,
)
# A full or closed disk, a file where a folder is wanted, or a name that cannot be.
_DISK_ERRNOS = {
    errno.EFBIG,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.EPERM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
}
# What MMCV asserts, of which a worker's traceback is put in front.
_UNREADABLE = re.compile(r'failed to load image: (.+)')
_UNKNOWN_OPTION = re.compile(
    r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'"
)
# What gloo and NCCL raise in the others when a process is gone.
_PEER_LOST = re.compile(
    r'Connection (?:closed by|reset by) peer|remote process exited|Broken pipe'
)
_LOST = (
    'another process of this run is gone: look at its log; to go on from the latest '
    'checkpoint, start all again with --resume'
)
# Seconds in which a launcher, told of a failure, ends the other processes.
_LAUNCHER_ACTS = 5
_RANK_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def run(main: Callable[[list[str] | None], object], argv: list[str] | None = None):
    """Run a tool; turn what a user can mend into one line on stderr.

    SIGTERM and SIGHUP end it as Ctrl-C does, so that what it was writing is removed.

    Args:
        main: The tool. It gets `argv`.
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        int: The exit status: 0, 2 (something the user can mend) or 128 + the signal.
    """
    with noted_interrupts() as signals:
        try:
            main(argv)
            part()
        except KeyboardInterrupt as error:
            return _leave(_interrupted(signals, str(error)))
        except Exception as error:
            if signals:  # it came out as another exception
                return _leave(_interrupted(signals, ''))
            message = one_line(error)
            if message is None:
                if is_distributed():
                    traceback.print_exc()
                    _leave(1)
                raise
            if _is_launched() and message == _LOST:
                # The launcher ends what is left, and knows what has ended the other.
                time.sleep(_LAUNCHER_ACTS)
            if _is_first_to_report():
                _report(message)
            return _leave(USER_ERROR)
    return 0


def _leave(status: int) -> int:
    """Return the status, or end at once as one of several processes.

    The threads of a process group may wait for processes that are gone, and C++ aborts
    if Python ends before them: the launcher would report that instead of the error.
    """
    if is_distributed():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _interrupted(signals: list[int], message: str) -> int:
    if rank() == 0:
        print(f'\n{message or "interrupted"}', file=sys.stderr, flush=True)
    return 128 + signals[-1] if signals else INTERRUPTED


def rank() -> int:
    """Return the number of this process among those of a launcher."""
    return int(next((os.environ[v] for v in _RANK_VARIABLES if v in os.environ), 0))


def _is_launched() -> bool:
    return 'TORCHELASTIC_RUN_ID' in os.environ


def _is_first_to_report() -> bool:
    """Whether no other process of this launch met the error, as a wrong option, before.

    torchrun gives each process a file for its error, all of them below one folder of
    the machine.
    """
    own = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if not own:
        return True
    try:
        (Path(own).parents[1] / 'reported').touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # twice is better than never
        return True
    return True


@contextmanager
def noted_interrupts() -> Iterator[list[int]]:
    """Note SIGINT, SIGTERM and SIGHUP, and raise KeyboardInterrupt for each.

    Where C++ calls back into Python, as in `torch.save`, a KeyboardInterrupt comes
    out as another exception; the note tells what it was.

    Yields:
        list[int]: The signals so far.
    """
    noted: list[int] = []
    owner = os.getpid()
    # torchrun sends SIGTERM to the others when one rank fails: they end at once.
    before = {
        number: signal.getsignal(number)
        for number in ([signal.SIGINT] if _is_launched() else _ENDINGS)
    }
    if before.get(_HANGUP) is signal.SIG_IGN:  # under nohup
        del before[_HANGUP]

    def note(signum: int, frame: object) -> None:
        noted.append(signum)
        outer = before[signum]
        if callable(outer):
            outer(signum, frame)
        elif os.getpid() != owner:  # a forked worker, which its pool ends by SIGTERM
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, outer in before.items():
            signal.signal(number, outer)


def one_line(error: BaseException) -> str | None:
    """Return the message for a user, or None where the error is not theirs to mend."""
    for link in _causes(error):
        if isinstance(link, UserError):
            return _flat(_REGISTRY_PREFIX.sub('', _unwrap_worker(str(link))))
        unknown = _UNKNOWN_OPTION.search(str(link))
        if isinstance(link, TypeError) and unknown:
            return (
                f'{unknown[1]} has no option {unknown[2]!r}: look for a misspelling in '
                'the config or in --cfg-options'
            )
        if isinstance(link, KeyError) and link.args == ('inputs',):
            return (
                'the pipeline returns no inputs for the model: it has to end with '
                'PackSegInputs (default_scope mmseg) or PackDetInputs (mmdet)'
            )
        if isinstance(link, ImportError) and 'pip install' in str(link):
            return str(link)
        if isinstance(link, RuntimeError) and _PEER_LOST.search(str(link)):
            return _LOST
        if 'DecompressionBombError' in f'{type(link)} {link}':
            return f'an image cannot be read: {too_large(link)}'
        unreadable = _UNREADABLE.findall(str(link))
        if isinstance(link, AssertionError) and unreadable:
            return (
                f'{unreadable[-1]} is not an image that can be read: look at the file'
            )
        if isinstance(link, OSError):
            missing = _MISSING_DATA.search(str(link))
            if missing:
                return (
                    f'data file not found: {missing[1]}; point the config at your '
                    'data with --cfg-options data_root=DIR'
                )
            if link.errno in _DISK_ERRNOS:
                where = f' ({link.filename})' if link.filename else ''
                return f'{os.strerror(link.errno)}{where}'
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _unwrap_worker(message: str) -> str:
    if not _WORKER.match(message):
        return message
    *_, last = _WORKER_USER_ERROR.finditer(message)
    return message[last.end() :]


def _flat(message: str) -> str:
    # Names in a file could otherwise steer the terminal.
    line = ' '.join(message.split())
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _report(message: str) -> None:
    # A bad image or label is met only by the rank that read it, so none is silent.
    who = f'(rank {rank()}) ' if rank() else ''
    print(f'error: {who}{message}', file=sys.stderr, flush=True)
