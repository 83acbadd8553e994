"""The newest whole checkpoint, whatever lies beside it."""

import shutil
from pathlib import Path

import pytest
import torch

from eomt_mm.engine import latest_checkpoint


def save(path, iteration, time='20260101_120000', weight=1.0, **more):
    checkpoint = dict(
        meta=dict(iter=iteration, time=time),
        state_dict={'weight': torch.full((3,), weight)},
        optimizer={},
        message_hub={},
        **more,
    )
    torch.save(checkpoint, path)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    """One bit of a weight, which torch.load does not notice."""
    content = bytearray(path.read_bytes())
    at = content.index(torch.ones(3).numpy().tobytes())
    content[at] ^= 1
    path.write_bytes(content)


def poison(path):
    save(path, 10, '20260101_130000', weight=float('nan'))


def test_nothing(tmp_path):
    assert latest_checkpoint(tmp_path / 'absent') == (None, [])
    assert latest_checkpoint(tmp_path) == (None, [])


@pytest.mark.parametrize('note', ['', '/moved/away/iter_5.pth', None])
def test_the_note_is_not_needed(tmp_path, note):
    save(tmp_path / 'iter_5.pth', 5)
    newest = save(tmp_path / 'iter_10.pth', 10, '20260101_130000')
    if note is not None:
        (tmp_path / 'last_checkpoint').write_text(note)
    assert latest_checkpoint(tmp_path) == (str(newest), [])


@pytest.mark.parametrize(
    'damage, reason', [(cut, 'cut short'), (flip, 'checksum'), (poison, 'NaN')]
)
def test_damaged_files_are_passed_over(tmp_path, damage, reason):
    whole = save(tmp_path / 'iter_5.pth', 5)
    damage(save(tmp_path / 'iter_10.pth', 10, '20260101_130000'))
    path, passed_over = latest_checkpoint(tmp_path)
    assert path == str(whole)
    assert len(passed_over) == 1
    assert passed_over[0].startswith('iter_10.pth (') and reason in passed_over[0]


def test_other_files_are_no_candidates(tmp_path):
    whole = save(tmp_path / 'epoch_3.pth', 5)
    late = '20260101_130000'
    save(tmp_path / 'best_mIoU_iter_10.pth', 10, late)
    save(tmp_path / '.partial-iter_10.pth', 10, late)
    torch.save({'state_dict': {}, 'meta': {'iter': 10}}, tmp_path / 'published.pth')
    assert latest_checkpoint(tmp_path) == (str(whole), [])


def test_an_older_longer_training_is_not_the_newest(tmp_path):
    save(tmp_path / 'iter_80000.pth', 80000, '20250101_120000')
    now = save(tmp_path / 'iter_2000.pth', 2000)
    assert latest_checkpoint(tmp_path)[0] == str(now)
    later = save(tmp_path / 'iter_2500.pth', 2500)  # in the same second
    assert latest_checkpoint(tmp_path)[0] == str(later)


def test_out_dir_is_found_through_the_note(tmp_path):
    work_dir, out_dir = tmp_path / 'run', tmp_path / 'out'
    work_dir.mkdir()
    out_dir.mkdir()
    save(out_dir / 'iter_5.pth', 5)
    newest = save(out_dir / 'iter_10.pth', 10, '20260101_130000')
    (work_dir / 'last_checkpoint').write_text(str(out_dir / 'iter_5.pth'))
    assert latest_checkpoint(work_dir) == (str(newest), [])


def test_a_copied_work_dir_keeps_to_itself(tmp_path):
    original = tmp_path / 'a'
    original.mkdir()
    save(original / 'iter_5.pth', 5)
    (original / 'last_checkpoint').write_text(str(original / 'iter_5.pth'))
    shutil.copytree(original, tmp_path / 'b')
    save(original / 'iter_10.pth', 10, '20260101_130000')
    assert Path(latest_checkpoint(tmp_path / 'b')[0]) == tmp_path / 'b' / 'iter_5.pth'
