"""A few instructions cannot make what takes for ever: to hash, to copy, to print."""

import io
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from eomt_mm import checkpoints, cli
from eomt_mm.engine.latest_checkpoint import latest_checkpoint
from eomt_mm.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_tools'))
from hostile_files import archive, call, number, program, raw, text  # noqa: E402

# Tuples of 200 of the one before, as a key: 200**8 values to hash.
WIDE = b'(' * 8 + b')' + (b'q\1' + b'h\1' * 199 + b't') * 8
LIST = b']q\1(' + number(1) * 1000 + b'e'


@pytest.mark.parametrize(
    'value',
    (
        b'}' + WIDE + b'Ns',
        call('__builtin__ set', b']' + WIDE + b'a'),
        b'](' + LIST + b''.join([call('__builtin__ set', b'h\1')] * 9) + b'e',
        b'](}q\1' + call('collections Counter', b'h\1') + b'e',
        b'](}q\1' + call('collections OrderedDict') + b'h\1be',
        b']q\1h\1' + number(1) + b'a0',
        b'](' + text('a' * 10**6) + b'q\1' + b'h\1' * 11 + b'e',
        b'](' + raw(b'a' * 10**6) + b'q\1' + b'h\1' * 11 + b'e',
    ),
)
def test_what_is_hashed_or_copied_again_and_again(tmp_path, value):
    path = tmp_path / 'file.pth'
    path.write_bytes(archive(program(value)))
    with pytest.raises(UserError, match='more than weights'):
        checkpoints.read(path)


def test_lists_within_lists_are_not_printed(tmp_path):
    laughs = 'ha'
    for _ in range(40):
        laughs = [laughs, laughs]
    for meta in (dict(iter=laughs, epoch=0), dict(iter=1, epoch=0, time=laughs)):
        hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
        content = dict(meta=meta, state_dict=dict(a=torch.ones(1)), message_hub=hub)
        path = tmp_path / 'iter_1.pth'
        torch.save({**content, 'optimizer': {}}, path)
        with pytest.raises(UserError, match='repeats itself'):
            cli.check_checkpoint(str(path), resume=True)
        assert latest_checkpoint(tmp_path)[0] is None


def test_what_is_shared_is_read(tmp_path):
    betas, names = (0.9, 0.99), ['a', 'b']
    groups = [dict(betas=betas, names=names) for _ in range(1000)]
    torch.save(dict(groups=groups), tmp_path / 'file.pth')
    read = checkpoints.read(tmp_path / 'file.pth')['groups']
    assert read == groups and read[0]['names'] is read[9]['names']


@pytest.mark.parametrize('other', ('file/data/A', 'file/data/é', 'FILE/data.pkl'))
def test_names_that_two_readers_take_for_different(tmp_path, other):
    path, file = tmp_path / 'file.pth', io.BytesIO()
    torch.save(dict(a=torch.ones(4)), file)
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(path, 'w') as target:
        for entry in source.infolist():
            data = source.read(entry)
            target.writestr(f'file/{entry.filename.partition("/")[2]}', data)
        target.writestr('file/data/a', b'')
        target.writestr(other, b'')
    with pytest.raises(UserError, match='several files'):
        checkpoints.read(path)
