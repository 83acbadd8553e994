"""Writing whole or not at all, with errors that name the reason."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from eomt_mm.errors import UserError
from eomt_mm.files import atomic_path, new_folder


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file all or nothing.

    Args:
        path (Path): The file.

    Yields:
        Path: A path to write to, see `atomic_path`.

    Raises:
        UserError: If it cannot be written.
    """
    with _explained(path), atomic_path(path) as partial:
        yield partial


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Write a folder all or nothing.

    Args:
        folder (Path): Folder to write, absent or empty.

    Yields:
        Path: A folder beside it. It takes the real name when the block ends, and is
        removed when the block raises.

    Raises:
        UserError: If `folder` is occupied or cannot be written.
    """
    refuse_occupied(folder)
    partial = folder.with_name(f'.partial-{folder.name}')
    with _explained(folder), new_folder(folder.parent):
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir()
        try:
            yield partial
            for path in partial.iterdir():
                with open(path, 'rb') as file:
                    os.fsync(file.fileno())  # as in `atomic_path`
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def refuse_occupied(folder: Path) -> None:
    """Raise a UserError if writing a folder would destroy something."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise UserError(
            f'{folder} is there already: remove it or give the name of a new folder'
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an error of the disk into one with a way out."""
    try:
        yield
    # PyTorch and safetensors write by themselves, and raise their own errors.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f'cannot write {path}: {_reason(error)}{_free_space(path)}. Make room, or '
            'name a place where there is some and where you may write'
        ) from error


def _reason(error: BaseException) -> str:
    """Return the system's reason, which PyTorch's own error may hide."""
    link = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
        link = link.__context__
    return str(error).split('\n')[0]


def _free_space(path: Path) -> str:
    folder = next((f for f in path.absolute().parents if f.is_dir()), None)
    if folder is None:
        return ''
    return f' ({shutil.disk_usage(folder).free / 1e9:,.1f} GB are free there)'
