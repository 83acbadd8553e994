"""Tiny models for the page, a server in this process, one in its own process."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tiny_models import make_tiny, suit_inferencers
from visitor import SHAPE, Client, encoded

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """`tiny('panoptic')` is a tiny model; its checkpoint names the classes."""
    made = {}

    def get(task, **changes):
        key = task, *changes
        if key not in made:
            found = make_tiny(tmp_path_factory.mktemp(task), task, **changes)
            made[key] = suit_inferencers(found, task)
        return made[key]

    return get


@pytest.fixture(scope='session')
def config_model(tiny):
    """`config_model('panoptic')` is a model of the page."""
    from mmengine.config import Config

    from serving.config_model import ConfigModel

    def get(task, **changes):
        found = tiny(task, **changes)
        cfg = Config.fromfile(found.config)
        return ConfigModel(cfg, str(found.checkpoint), task)

    return get


@pytest.fixture(scope='session')
def pixels():
    """A photo of smooth shapes with noise, (H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    waves = [np.sin(x / (7 + i)) * np.cos(y / (11 - i)) for i in range(3)]
    photo = 128 + 90 * np.stack(waves, -1) + rng.normal(0, 15, (*SHAPE, 3))
    return photo.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope='session')
def png(pixels):
    """The photo as a PNG file."""
    return encoded(pixels)


@pytest.fixture(scope='session')
def serve():
    """`with serve(models, megapixels=1) as page:` has `client`, `service`, `port`."""
    import uvicorn

    from serving.app import build_app
    from serving.ports import listen
    from serving.service import Limits, Service

    @contextlib.contextmanager
    def run(models, hosts=('127.0.0.1',), **limits):
        service = Service(models, Limits(**limits))
        listening, _ = listen('127.0.0.1', 0)
        config = uvicorn.Config(build_app(service, list(hosts)), log_level='error')
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            port = listening.getsockname()[1]
            yield SimpleNamespace(
                client=lambda token='a' * 24: Client(port, token),
                service=service,
                port=port,
            )
        finally:
            server.should_exit = True
            thread.join()
            listening.close()

    return run


@pytest.fixture(scope='session')
def process(tiny, tmp_path_factory):
    """`tools/serve.py` with two tiny models: `port`, `pid`, `client`."""
    words = []
    for task in ('panoptic', 'semantic'):
        words += [tiny(task).config, tiny(task).checkpoint]
    command = [sys.executable, 'tools/serve.py', *map(str, words), '--port', '0']
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    log = tmp_path_factory.mktemp('process') / 'log'
    with log.open('w') as out:
        server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)
    try:
        ready = re.compile(r'open http://127\.0\.0\.1:(\d+)')
        while not (found := ready.search(log.read_text())):
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        port = int(found[1])
        yield SimpleNamespace(port=port, pid=server.pid, client=Client(port))
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0, log.read_text()
    assert 'the page is closed' in log.read_text()
