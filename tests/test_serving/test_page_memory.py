"""Memory after everyone has gone is what it was before they came."""

import gc
import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visitor import Client, encoded

pytestmark = pytest.mark.skipif(
    not Path('/proc/self/statm').exists(), reason='needs the /proc of Linux'
)


def resident(pid):
    """Memory of a process in MB."""
    with open(f'/proc/{pid}/statm') as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def visit(port, number, photo):
    """One user: a photo, two runs, a download; all is forgotten then."""
    client = Client(port, f'visitor-{number}'.ljust(20, '-'))
    client.upload(photo)
    for merging in ('off', 50):
        client.ask(merging=merging)
    client.download('painted.png' if number == 0 else 'coco.json')
    client.send('POST', f'/api/{client.token}/forget')


def test_memory_is_back(process):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (60, 80, 3), np.uint8)
    photo = encoded(np.kron(small, np.ones((10, 10, 1), np.uint8)), 'JPEG')
    huge = io.BytesIO()
    Image.new('1', (10_000, 10_000)).save(huge, 'PNG')
    # The first visits fill caches: fonts, kernels, threads.
    for _ in range(2):
        visit(process.port, 0, photo)
    held = process.client.about()['held']  # of pages that other tests have left
    before = resident(process.pid)
    visitors = [
        threading.Thread(target=visit, args=(process.port, number, content))
        for number, content in enumerate([photo] * 10 + [huge.getvalue(), b'text'])
    ]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(200)
    gc.collect()
    about = process.client.about()
    assert about['held'] == held and about['waiting'] == 0
    after = resident(process.pid)
    print(f'{before:.0f} MB before, {after:.0f} MB after')
    assert after < 1.1 * before
