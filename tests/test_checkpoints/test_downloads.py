"""Downloads that fail are one line that names the address."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from eomt_mm.cli import check_checkpoint
from eomt_mm.errors import UserError


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Address of a server of one good file, half of it, and nothing else."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    torch.save({'state_dict': {'a': torch.ones(3)}}, tmp_path / 'good.pth')
    content = (tmp_path / 'good.pth').read_bytes()
    files = {'/good.pth': content, '/half.pth': content[: len(content) // 2]}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in files:
                return self.send_error(404)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(files[self.path])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


def test_a_download(served):
    loaded = CheckpointLoader.load_checkpoint(f'{served}/good.pth')
    assert torch.equal(loaded['state_dict']['a'], torch.ones(3))


@pytest.mark.parametrize(
    'name, reason',
    (
        ('gone.pth', 'gone.pth cannot be downloaded .*404'),
        ('half.pth', 'download of http.*half.pth: remove it'),
        ('good-0123abcd.pth', 'cannot be downloaded'),
        ('', 'names no file'),
    ),
)
def test_a_bad_download_is_one_line(served, name, reason):
    with pytest.raises(UserError, match=reason):
        CheckpointLoader.load_checkpoint(f'{served}/{name}')


def test_nobody_answers(served):
    with pytest.raises(UserError, match='cannot be downloaded'):
        CheckpointLoader.load_checkpoint('http://127.0.0.1:9/a.pth')


def test_an_address_to_resume_from(served):
    """Weights alone are refused before anything is built, as from a local file."""
    assert check_checkpoint(f'{served}/good.pth') is None
    with pytest.raises(UserError, match='good.pth holds weights only'):
        check_checkpoint(f'{served}/good.pth', resume=True)
