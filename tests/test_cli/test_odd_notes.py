"""A `last_checkpoint` of another hand ends no tool in a traceback."""

import pytest

from eomt_mm import cli
from eomt_mm.engine.latest_checkpoint import latest_checkpoint

NOTES = (
    b'',
    b'\xff\xfe',
    b'a\0b',
    b'/etc/passwd',
    b'..',
    b'best.pth',
    b'iter_x.pth',
    b'iter_' + b'9' * 5000,
    b'x' * 10**6,
    b'http://127.0.0.1:9/iter_1.pth',
    b'file:///etc/passwd',
    b'openmmlab://x',
    b'torchvision://resnet18',
    b'~root/x',
)


@pytest.mark.parametrize('note', NOTES)
def test_an_odd_note(tmp_path, note):
    for name in ('best.pth', 'iter_x.pth'):
        (tmp_path / name).touch()
    (tmp_path / 'last_checkpoint').write_bytes(note)
    assert cli.iterations_done(tmp_path) == 0
    assert latest_checkpoint(tmp_path)[0] is None
