"""Reading of weights from untrusted files.

Two independent barriers precede every value: the walk of `walk.py` through the file's
pickles, and PyTorch's reader with `weights_only=True`, which may call the stand-ins of
`stand_ins.py` alone, for the time of one load. Nothing is allowed for the rest of the
process, and what other libraries allow or remove has no effect.
"""

import io
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from mmengine.logging import print_log
from mmengine.utils import digit_version
from torch import Tensor

from eomt_mm.errors import UserError
from eomt_mm.files import refuse_special

from .stand_ins import STAND_INS, to_plain
from .walk import Refused, check_program

LARGE = 10**9  # bytes; reading that much takes a while
# The format before PyTorch 1.6, a sequence of pickles: a magic
# number, a version, the system, the content, and the keys of the storages.
_PICKLES_BEFORE_1_6 = 5
# PyTorch's list is one for all threads.
_LOCK = threading.Lock()


def read(path: str | Path, map_location: object = 'cpu', mmap: bool = False) -> dict:
    """Read a file of `torch.save` without running anything in it.

    Args:
        path (str | Path): The file.
        map_location (object): See `torch.load`.
        mmap (bool): Whether tensors stay on disk until they are used, if the format
            allows it. The file must outlive them.

    Returns:
        dict: Tensors, numbers, text, MMEngine's logs, in builtin containers. A config
        text that MMEngine would execute can be read with `dict.get` only, see `Meta`.

    Raises:
        UserError: If the file is damaged, is something else, or asks for code.
    """
    path = Path(path)
    if digit_version(torch.__version__) < digit_version('2.6'):
        raise UserError(
            f'{path} is not read: torch {torch.__version__} has a hole through which a '
            'file of weights can run code. Install torch 2.6 or newer'
        )
    refuse_special(path)
    with open(path, 'rb') as file:
        start = file.read(512)
    if start.startswith(b'version https://git-lfs'):
        raise UserError(
            f'{path} is a pointer of Git LFS, not the file: run `git lfs pull`'
        )
    is_zip = start.startswith(b'PK')
    try:
        if is_zip:
            _walk_zip(path)
        else:
            _walk_pickles(path, start)
        with _stand_ins_alone():
            content = torch.load(
                path, map_location=map_location, weights_only=True, mmap=mmap and is_zip
            )
        content = to_plain(content)
    except Refused as error:
        raise UserError(
            f'{path} holds more than weights ({error}), and none of that was run. If '
            'you trust the file, take its state dict out with the program that wrote it'
        ) from error
    except UserError:
        raise
    # A file made to break can fail anywhere inside a reader; torch's own advice, to
    # switch the protection off, is not passed on.
    except Exception as error:
        raise UserError(_unreadable(path, _reason(error))) from error
    if not isinstance(content, dict):
        raise UserError(
            f'{path} holds a {type(content).__name__}, and a checkpoint is a dict: '
            'give a file of MMEngine, or of torch.save(model.state_dict(), PATH)'
        )
    if isinstance(content.get('meta'), dict):
        content['meta'] = Meta(content['meta'])
    return content


class Meta(dict):
    """The `meta` of a checkpoint, whose configs can be read but not run.

    MMEngine executes `meta['config']` when it resumes, and MMDet's inferencer
    `meta['cfg']` where it is given no config. Both texts move to `texts`.

    Attributes:
        texts (dict[str, str]): Contents of `cfg` and `config`.
    """

    def __init__(self, meta: dict) -> None:
        super().__init__(meta)
        found = {key: self.pop(key) for key in ('cfg', 'config') if key in self}
        self.texts = {k: v for k, v in found.items() if isinstance(v, str)}

    def __reduce_ex__(self, protocol: int) -> tuple:
        # Saved as an OrderedDict, with its texts: any reader knows that class.
        return OrderedDict, (), None, None, iter({**self, **self.texts}.items())

    def __missing__(self, key: str) -> object:
        if key in ('cfg', 'config'):
            raise UserError(
                'the config in a checkpoint is not run, for it may come from anywhere: '
                "give the config itself, as in DetInferencer('CONFIG', 'CHECKPOINT')"
            )
        raise KeyError(key)


def config_of(content: dict) -> str | None:
    """Return the text of the config in a checkpoint, if there is one.

    Args:
        content (dict): Result of `read`.
    """
    meta = content.get('meta')
    return meta.texts.get('cfg') if isinstance(meta, Meta) else None


def check_sums(path: str | Path) -> None:
    """Compare a zip's content with its checksums, which PyTorch ignores.

    Raises:
        UserError: Names the damaged part.
    """
    path = Path(path)
    if path.stat().st_size > LARGE:
        print_log(f'checking {path} ({path.stat().st_size / 1e9:.1f} GB)')
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    # zipfile raises NotImplementedError, zlib's and struct's errors among others.
    except Exception as error:
        raise UserError(_unreadable(path)) from error
    if damaged:
        raise UserError(
            f'{path} is damaged: wrong checksum of {damaged[:80]}. Take another copy'
        )


def refuse_nan(tensors: dict[str, Tensor], path: str | Path) -> None:
    """Raise a UserError that names the tensors with NaN values."""
    broken = [
        key
        for key, value in tensors.items()
        # The sum is fast and NaN where a value is, or where infinite values meet.
        if value.is_floating_point() and value.sum().isnan() and value.isnan().any()
    ]
    if broken:
        more = f' and {len(broken) - 3} more' if len(broken) > 3 else ''
        raise UserError(
            f'{path} has NaN values in {", ".join(broken[:3])}{more}: the training '
            'that wrote it diverged, or the file is damaged. Take an earlier checkpoint'
        )


@contextmanager
def _stand_ins_alone() -> Iterator[None]:
    """Allow the stand-ins and nothing else.

    If another library has listed `numpy.ndarray` or `HistoryBuffer`, PyTorch would
    take whichever of the two comes first.
    """
    with _LOCK:
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        try:
            with torch.serialization.safe_globals(
                [(stand_in, name) for name, stand_in in STAND_INS.items()]
            ):
                yield
        finally:
            torch.serialization.add_safe_globals(others)


def _walk_zip(path: Path) -> None:
    """Walk through the pickle in an archive, after a look at the archive itself."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    # PyTorch looks names up without regard to case, and by bytes: its storage would not
    # be the one whose size was compared.
    twice = len({name.lower() for name in names}) < len(names)
    twice = twice or not all(name.partition('/')[2].isascii() for name in names)
    folders = {name.partition('/')[0] for name in names}
    if twice or len(folders) != 1:
        raise Refused('an archive of several files, or with two of one name')
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Refused('compressed data, which torch.save never writes')
    folder = folders.pop()
    if f'{folder}/constants.pkl' in names:
        raise Refused('a TorchScript program')
    if f'{folder}/data.pkl' not in names:
        raise ValueError('no data.pkl')
    prefix = f'{folder}/data/'
    storages = {
        entry.filename.removeprefix(prefix): entry.file_size
        for entry in entries
        if entry.filename.startswith(prefix)
    }
    with zipfile.ZipFile(path) as archive:
        program = archive.read(f'{folder}/data.pkl')
    # What PyTorch is going to read must be what was walked through.
    if torch._C.PyTorchFileReader(str(path)).get_record('data.pkl') != program:
        raise Refused('an archive that two readers see differently')
    check_program(io.BytesIO(program), storages)


def _walk_pickles(path: Path, start: bytes) -> None:
    """Walk through the pickles of the format before PyTorch 1.6."""
    if start[257:262] == b'ustar':
        raise Refused('the tar format before PyTorch 0.1.10')
    if start[:1] != b'\x80':
        raise ValueError('not a file of torch.save')
    size = path.stat().st_size
    with open(path, 'rb') as file:
        first = check_program(file, size)
        if first != torch.serialization.MAGIC_NUMBER:
            raise ValueError(
                'a plain pickle, not a file of torch.save; write one with '
                'torch.save(state_dict, PATH) where you trust it'
            )
        for _ in range(_PICKLES_BEFORE_1_6 - 1):
            check_program(file, size)


def _reason(error: Exception) -> str:
    if isinstance(error, UnpicklingError) and str(error).startswith('refused'):
        return str(error)
    if isinstance(error, ValueError) and str(error).startswith('a plain pickle'):
        return str(error)
    return ''


def _unreadable(path: Path, reason: str = '') -> str:
    size = f'{path.stat().st_size:,} bytes'
    return (
        f'{path} is not a file of weights, or is cut short or damaged ({size}'
        f'{reason and "; "}{reason}): download it again, or take another copy'
    )
