"""How a tool ends: messages as MMEngine and PyTorch wrap them, written out here."""

import errno

import pytest
from torch.utils.data import DataLoader, Dataset

from eomt_mm.cli.exit import one_line, run
from eomt_mm.errors import UserError


def test_registry_prefixes_are_stripped():
    error = UserError(
        'class `EncoderDecoder` in mmseg/models/segmentors/encoder_decoder.py: '
        'class `QueryViT` in eomt_mm/models/query_vit.py: patch 16: side 500\n is not'
    )
    assert one_line(error) == 'patch 16: side 500 is not'


class _Broken(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise UserError('image a.jpg is truncated')


def test_worker_error_is_unwrapped():
    with pytest.raises(UserError, match='Original Traceback') as caught:
        list(DataLoader(_Broken(), num_workers=1))
    assert one_line(caught.value) == 'image a.jpg is truncated'


def test_cause_is_found():
    try:
        try:
            raise UserError('mend this')
        except UserError as error:
            raise RuntimeError('wrapped') from error
    except RuntimeError as error:
        assert one_line(error) == 'mend this'


def test_missing_program_is_not_missing_data():
    assert one_line(FileNotFoundError(errno.ENOENT, 'No such file', 'gcc')) is None
    error = FileNotFoundError(errno.ENOENT, 'No such file or directory', 'd/a.png')
    assert 'd/a.png' in one_line(error)


def test_full_disk_names_the_file():
    assert one_line(OSError(errno.ENOSPC, '', 'f.png')) == (
        'No space left on device (f.png)'
    )


@pytest.mark.parametrize(
    'rank, printed', [('0', 'error: no\n'), ('1', 'error: (rank 1) no\n')]
)
def test_every_rank_speaks(monkeypatch, capsys, rank, printed):
    monkeypatch.setenv('RANK', rank)

    def main(argv):
        raise UserError('no')

    assert run(main) == 2
    assert capsys.readouterr().err == printed


def test_a_bad_image_of_another_rank_is_told(monkeypatch, capsys):
    monkeypatch.setenv('RANK', '3')
    assert run(lambda argv: list(DataLoader(_Broken(), num_workers=1))) == 2
    assert 'error: (rank 3) image a.jpg is truncated' in capsys.readouterr().err


def test_interrupt(monkeypatch, capsys):
    def main(argv):
        raise KeyboardInterrupt

    assert run(main) == 130
    assert capsys.readouterr().err.strip() == 'interrupted'


def test_defect_is_raised():
    with pytest.raises(ZeroDivisionError):
        run(lambda argv: 1 / 0)


def test_misspelt_option_is_named():
    class Loop:
        def __init__(self, max_iters):
            pass

    with pytest.raises(TypeError) as caught:
        Loop(max_iter=20)
    assert "Loop has no option 'max_iter'" in one_line(caught.value)
    assert one_line(TypeError('unsupported operand')) is None


def test_file_where_a_folder_is_wanted(tmp_path):
    path = tmp_path / 'out'
    path.touch()
    with pytest.raises(OSError) as caught:
        path.mkdir()
    assert one_line(caught.value) == f'File exists ({path})'
