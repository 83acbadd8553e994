"""Files are written whole or not at all, folders have one user at a time."""

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath

from eomt_mm.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# What file systems without locks answer, network file systems above all.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_held: set[int] = set()  # descriptors of the locks that this process holds
# What opens like a file. A pipe waits for a writer that may never come.
_SPECIAL = (
    (stat.S_ISFIFO, 'a pipe'),
    (stat.S_ISSOCK, 'a socket'),
    (stat.S_ISCHR, 'a device'),
    (stat.S_ISBLK, 'a device'),
)


def refuse_special(path: str | Path) -> None:
    """Refuse what a reader would wait for, or never come to the end of.

    Args:
        path (str | Path): To be read as a file. Where it is missing or a folder, its
            reader tells.

    Raises:
        UserError: It is a pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return
    for is_such, kind in _SPECIAL:
        if is_such(mode):
            raise UserError(f'{path} is {kind}: give a regular file')


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Create a folder and its parents, and remove them if the block raises.

    Args:
        folder (Path): The folder. What was there before stays, and so does a folder
            that somebody has put something into.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in created:
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file all or nothing.

    Args:
        path: The file wanted. Its folder is created.

    Yields:
        A path beside it, with the same suffix, to write to. It takes the real name
        when the block ends, and is removed when the block raises, with the folders
        that were created for it. A process killed in between leaves the previous file
        whole.
    """
    path = Path(path)
    # The same name every time: what a killed process left is overwritten, not kept.
    partial = path.with_name(f'.partial-{path.name}')
    with new_folder(path.parent):
        try:
            with naming(path):
                yield partial
            with open(partial, 'rb') as file:
                os.fsync(file.fileno())  # or a power cut could leave no data
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add the path to an error of the disk.

    A write that fails on a full disk does not name the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def is_below(name: object) -> bool:
    """Whether a file name from an untrusted file stays below its folder.

    Args:
        name (object): A relative name, perhaps with folders. Rules of Windows count
            everywhere: data sets travel.
    """
    if not isinstance(name, str) or not name or '\0' in name:
        return False
    windows = PureWindowsPath(name)
    parts = windows.parts
    return not (windows.drive or windows.root or '..' in parts or not parts)


def make_folder(folder: Path, option: str) -> None:
    """Create a folder for results before any work is done.

    Args:
        folder (Path): Created if need be, with its parents.
        option (str): The option that names it.

    Raises:
        UserError: The folder cannot be created, or is not writable.
    """
    reason = 'no permission to write there'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return
    except OSError as error:
        reason = error.strerror
    raise UserError(
        f'{option}: {folder} cannot be a folder for results ({reason}); give another '
        f'{option}'
    )


@contextmanager
def sole_user(folder: Path, option: str = '--work-dir') -> Iterator[int]:
    """Hold a folder's lock, so that no second process works in it.

    The lock ends with the process, however that ends. Forked processes do not hold it:
    data workers outlive a killed training by seconds, and it may be resumed at once.

    Args:
        folder (Path): Created if need be.
        option (str): The option that names it. Defaults to '--work-dir'.

    Yields:
        int: A file descriptor; a command that inherits it keeps the lock. On a file
        system without locks there is a warning and no lock.

    Raises:
        UserError: The folder is in use, or cannot be written to.
    """
    make_folder(folder, option)
    descriptor = os.open(folder / '.lock', os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        _lock(descriptor, folder, option)
        yield descriptor
    finally:
        if descriptor in _held:  # not in a forked process
            _held.remove(descriptor)
            os.close(descriptor)


def _lock(descriptor: int, folder: Path, option: str) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f'{folder} is in use by another call of this tool, or by a training '
            'that a killed one left behind: wait until it has ended, or give '
            f'another {option}'
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f'{folder} cannot be locked ({error.strerror}): make sure that nothing '
            'else writes there',
            stacklevel=4,
        )


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)
