"""How a tool ends: messages as MMEngine and PyTorch wrap them, written out here."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from eomt_mm.cli import exit
from eomt_mm.cli.exit import noted_interrupts, one_line, run
from eomt_mm.errors import UserError
from eomt_mm.files import atomic_path

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def defaults(monkeypatch):
    """A shell may have this process ignore signals; whatever is changed is undone."""
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    defaults = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL)
    before = [signal.signal(*pair) for pair in zip(ENDINGS, defaults, strict=True)]
    yield
    left = tuple(signal.getsignal(number) for number in ENDINGS)
    for number, handler in zip(ENDINGS, before, strict=True):
        signal.signal(number, handler)
    assert left == defaults


def send(number):
    """Sends a signal to this process, unless it would die of it."""
    assert signal.getsignal(number) is not signal.SIG_DFL
    os.kill(os.getpid(), number)
    time.sleep(10)  # until the handler has run


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


@pytest.mark.parametrize('number', ENDINGS)
def test_a_signal_leaves_no_half_of_a_file(tmp_path, capsys, number):
    path = tmp_path / 'file.pth'
    path.write_text('whole')

    def main(argv):
        with atomic_path(path) as partial:
            partial.write_text('half')
            send(number)

    assert run(main) == 128 + number
    assert capsys.readouterr().err.strip() == 'interrupted'
    assert [p.name for p in tmp_path.iterdir()] == ['file.pth']
    assert path.read_text() == 'whole'


def test_a_signal_that_comes_out_as_another_exception(capsys):
    def main(argv):
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt:  # as C++ does
            raise RuntimeError('unexpected pos 64 vs 0') from None

    assert run(main) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.strip() == 'interrupted'


def test_notes_inside_notes(capsys):
    """Training explains how to continue."""

    def main(argv):
        with noted_interrupts() as signals:
            try:
                send(signal.SIGTERM)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f'{len(signals)} signal') from None

    assert run(main) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.strip() == '1 signal'


def test_a_forked_worker_is_ended_without_a_word(capfd):
    def work(runs):
        runs.set()
        time.sleep(60)

    def main(argv):
        with noted_interrupts():
            context = multiprocessing.get_context('fork')
            runs = context.Event()
            worker = context.Process(target=work, args=(runs,))
            worker.start()
            assert runs.wait(30)
            worker.terminate()
            worker.join()
            assert worker.exitcode == -signal.SIGTERM

    assert run(main) == 0
    assert not capfd.readouterr().err


def test_signals_that_are_left_alone(monkeypatch):
    def handlers(argv):
        seen.append([signal.getsignal(number) for number in ENDINGS[1:]])

    seen = []
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')  # torchrun ends the other ranks
    assert run(handlers) == 0
    monkeypatch.delenv('TORCHELASTIC_RUN_ID')
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    assert run(handlers) == 0
    assert seen[0] == [signal.SIG_DFL, signal.SIG_DFL]
    assert callable(seen[1][0]) and seen[1][1] is signal.SIG_IGN
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_one_process_of_a_launch_reports(monkeypatch, tmp_path, capfd):
    def fail(argv):
        raise UserError('a wrong option')

    for attempt in (0, 1):
        for number in (1, 0):
            folder = tmp_path / f'attempt_{attempt}/{number}'
            folder.mkdir(parents=True)
            monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(folder / 'error.json'))
            monkeypatch.setenv('RANK', str(number))
            assert run(fail) == 2
    line = 'error: (rank 1) a wrong option\n'
    assert capfd.readouterr().err == 2 * line


def test_defect_is_raised():
    with pytest.raises(ZeroDivisionError):
        run(lambda argv: 1 / 0)


@pytest.mark.parametrize(
    ('error', 'status', 'said'),
    [
        (UserError('no such file'), 2, 'error: no such file'),
        (OSError(), 1, 'Traceback'),
    ],
)
def test_one_of_several_processes_ends_at_once(
    monkeypatch, capsys, error, status, said
):
    """Threads of a process group would abort at Python's end."""

    def main(argv):
        raise error

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(exit, 'is_distributed', lambda: True)
    monkeypatch.setattr(exit.os, '_exit', leave)
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == status
    assert said in capsys.readouterr().err


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


TOOLS = sorted(
    path
    for path in (Path(__file__).parents[2] / 'tools').rglob('*.py')
    if "\nif __name__ == '__main__':" in path.read_text()
    and '\nfrom eomt_mm import' in path.read_text()
)


@pytest.mark.parametrize('path', TOOLS, ids=lambda path: path.stem)
def test_an_interrupt_of_the_imports_has_no_traceback(path, tmp_path):
    """The first import after the standard library's sends Ctrl-C."""
    package = tmp_path / 'eomt_mm'
    package.mkdir()
    (package / '__init__.py').write_text('')
    code = 'import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)'
    for name in ('torch', 'numpy', 'mmengine', 'mmdet', 'eomt_mm/cli'):
        (tmp_path / f'{name}.py').write_text(code)
    done = subprocess.run(
        [sys.executable, path, '--help'],
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, '')
