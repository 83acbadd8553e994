"""The checkpoint from which an interrupted training continues."""

import re
import zipfile
from pathlib import Path

from eomt_mm import checkpoints
from eomt_mm.engine.finite import non_finite

# Keys without which no training continues.
TRAINING_STATE = {'meta', 'state_dict', 'optimizer', 'message_hub'}
# Addresses at which no training writes a checkpoint, those of model zoos among them.
_READ_ONLY = re.compile(
    r'(https?|ftp|file|pavi|modelzoo|torchvision|open-mmlab|openmmlab|mmcls):'
)


def latest_checkpoint(work_dir: str | Path) -> tuple[str | None, list[str]]:
    """Find the newest whole checkpoint of a work directory.

    MMEngine trusts the file `last_checkpoint`, which is empty if the process was killed
    while it was written, and wrong once the directory has moved. The newest checkpoint
    is the one with the latest time stated inside, at equal times the one with the most
    iterations. Iterations alone would choose an older, longer training in the same
    directory, and copies of files have other times of modification.

    Every process of a distributed training finds the same one.

    Args:
        work_dir (str | Path): Folder of MMEngine's CheckpointHook. If that has an
            `out_dir`, `last_checkpoint` leads to it.

    Returns:
        tuple[str | None, list[str]]: The path, None if there is none, and a reason for
        each damaged file that was passed over. Files without training state are no
        candidates: `best_*.pth`, published weights.
    """
    folder = Path(work_dir)
    record = folder / 'last_checkpoint'
    recorded = record.read_text(errors='replace').strip() if record.is_file() else ''
    # DeepSpeed writes folders, and the record after all processes have written.
    here = folder / Path(recorded).name
    if here.name != '..' and checkpoints.is_deepspeed_folder(here):
        return str(here), []
    path, passed_over = _newest(folder)
    if path is None and recorded:
        if '://' in recorded:
            # A hook can write there; a record must not cause downloads from elsewhere.
            return (None if _READ_ONLY.match(recorded) else recorded), passed_over
        path, elsewhere = _newest(Path(recorded).parent)
        passed_over += elsewhere
    return path, passed_over


def _newest(folder: Path) -> tuple[str | None, list[str]]:
    candidates, damaged = [], []
    for path in sorted(folder.glob('*.pth')):
        if path.name.startswith(('.', 'best_')) or not path.is_file():
            continue
        try:
            checkpoint = _read(path)
            if TRAINING_STATE <= checkpoint.keys():
                meta = checkpoint['meta']
                age = str(meta.get('time', '')), int(meta['iter'])
                candidates.append((age, path))
        except Exception as error:  # whatever is in it, the next one may be whole
            damaged.append(f'{path.name} ({_reason(error)})')
    for _, path in sorted(candidates, reverse=True):
        reason = _damage(path)
        if reason is None:
            return str(path), damaged
        damaged.append(f'{path.name} ({reason})')
    return None, damaged


def _read(path: Path) -> dict:
    """Read the structure of a checkpoint; the tensors stay on disk."""
    if not zipfile.is_zipfile(path):
        raise ValueError('cut short')
    return checkpoints.read(path, mmap=True)


def _damage(path: Path) -> str | None:
    """Read a file to its end; return why no training can continue from it."""
    try:
        checkpoints.check_sums(path)
        broken = non_finite(checkpoints.weights_of(_read(path), path))
    except Exception as error:  # zipfile's of many kinds
        return _reason(error)
    return f'NaN or infinite values in {broken[0]}' if broken else None


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
