"""The server under good and bad manners: all are answered, nothing is left behind."""

import io
import json
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from serving.outputs import Model
from serving.sessions import MOST_SESSIONS
from serving.settings import View
from visitor import SHAPE, encoded


class Slow(Model):
    """A model whose network waits until it is let go.

    Args:
        model (Model): What it does then.
    """

    def __init__(self, model):
        self.__dict__.update(vars(model), model=model)
        self.gate, self.entered = threading.Event(), threading.Event()

    def look(self, pixels, run):
        self.entered.set()
        assert self.gate.wait(60)
        return self.model.look(pixels, run)

    def finish(self, outputs, view, size):
        return self.model.finish(outputs, view, size)


@pytest.fixture(scope='module')
def model(config_model):
    return config_model('panoptic')


@pytest.fixture
def page(serve, model):
    with serve([model], megapixels=1, megabytes=0.5) as running:
        yield running


@pytest.fixture
def slow(serve, model):
    with serve([Slow(model)], waiting=20) as running:
        running.model = running.service.models[0]
        yield running
        running.model.gate.set()


def later(work, *args, **kwargs):
    """Starts something in a thread; `join()` of the result returns what it returns."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work(*args, **kwargs)))
    thread.start()

    def join():
        thread.join(60)
        return found[0]

    return SimpleNamespace(join=join, thread=thread)


def until(condition):
    """Waits for what another thread is about to do."""
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, 'it never happened'
        time.sleep(0.01)


def listeners(page):
    """How many wait for the result that the network works at."""
    return sum(ticket.listeners for ticket in page.service.line.tickets[:1])


def test_a_photo_a_result_and_thresholds_without_another_pass(page, png):
    client = page.client()
    assert client.about()['passes'] == 0
    status, photo = client.upload(png, 'a%20photo.png')
    assert status == 200 and photo['name'] == 'a photo.png'
    assert [photo['width'], photo['height']] == photo['shown'] == [*SHAPE[::-1]]
    *places, first = client.ask()
    assert places[0] == dict(waiting=0)
    (second,) = client.ask(thresholds=dict(object_mask_thr=0.99))
    assert len(first['rows']) > len(second['rows']) == 0
    assert first['passes'] == second['passes'] == client.about()['passes'] == 1
    assert first['seconds'].keys() == {'read', 'network', 'post', 'draw'}
    *_, third = client.ask(merging=50)
    assert third['passes'] == 2
    path = f'/api/{client.token}/photo/1.jpg'
    status, jpeg = client.send('GET', path)
    assert status == 200 and Image.open(io.BytesIO(jpeg)).size == SHAPE[::-1]


def test_inside_and_one_query(page, png):
    client = page.client()
    client.upload(png)
    *_, found = client.ask('inside')
    assert found['steps'][-1] == 'final' and len(found['queries']) == 8
    (mask,) = client.ask('query', step=1, query=3)
    assert mask.keys() == {'mask'}
    (refusal,) = client.ask('query', query=8)
    assert 'no query 8' in refusal['error']
    *_, earlier = client.ask(inside=True, step=0)
    assert 'rows' in earlier and earlier['passes'] == 1  # it is the same run


def test_downloads(page, png, pixels, model):
    client = page.client()
    client.upload(png, 'photo.png')
    *_, found = client.ask()
    status, painted = client.download('painted.png')
    outputs = next(iter(page.service.sessions.open(client.token).outputs.values()))
    expected = model.picture(pixels, outputs, View({}))
    assert status == 200
    assert (np.asarray(Image.open(io.BytesIO(painted))) == expected).all()
    content = json.loads(client.download('coco.json')[1])
    (annotation,) = content['annotations']
    assert annotation['file_name'] == content['images'][0]['file_name'] == 'photo.png'
    _, body = client.download('panoptic.png')
    ids = np.asarray(Image.open(io.BytesIO(body))).astype(int) @ [1, 256, 65536]
    assert len(annotation['segments_info']) == len(found['rows']) > 0
    for segment in annotation['segments_info']:
        assert (ids == segment['id']).sum() == segment['area']
    assert client.download('passwd')[0] == 404


def test_instances_in_coco_format(serve, config_model, png):
    model = config_model('instance')
    with serve([model]) as page:
        client = page.client()
        client.upload(png)
        values = dict(thresholds=dict(object_mask_thr=0.1, max_per_image=5))
        *_, found = client.ask(**values)
        content = json.loads(client.download('coco.json', **values)[1])
        assert len(content['annotations']) == len(found['rows']) > 0
        for annotation in content['annotations']:
            assert coco_masks.decode(annotation['segmentation']).shape == SHAPE
            assert annotation['score'] > 0.1


BAD = {
    'a text with the name of a photo': b'no photo at all',
    'empty': b'',
    'too many pixels': encoded(np.zeros((1000, 1100), np.uint8)),
    'too many bytes': bytes(600_000),
}


@pytest.mark.parametrize('content', BAD.values(), ids=BAD.keys())
def test_what_is_no_photo_is_answered_in_one_sentence(page, png, content):
    client = page.client()
    status, told = client.upload(content, 'photo.jpg')
    assert status == 400 and told.keys() == {'error'} and '\n' not in told['error']
    assert client.upload(png)[0] == 200, 'and the page goes on'


def test_a_hundred_megapixels_and_an_animation(serve, model, pixels):
    file = io.BytesIO()
    Image.new('1', (10_000, 10_000)).save(file, 'PNG')
    frames = [Image.fromarray(pixels[..., i]) for i in range(3)]
    gif = encoded(pixels[..., 0], 'GIF', save_all=True, append_images=frames[1:])
    with serve([model]) as page:
        status, told = page.client().upload(file.getvalue())
        assert status == 400 and '100 megapixels' in told['error']
        status, told = page.client().upload(gif, 'moving.gif')
        assert status == 200 and '3 pictures' in told['note']
        assert 'rows' in page.client().ask()[-1]


def test_no_photo_yet(page):
    (told,) = page.client().ask()
    assert 'choose it again' in told['error']
    assert page.client().send('GET', f'/api/{"a" * 24}/photo') == (200, b'{}')
    assert page.client().download('coco.json')[0] == 410


@pytest.mark.parametrize(
    'body',
    [
        b'{',
        b'[]',
        b'{"model": 7}',
        b'[' * 9000,
        b'{"thresholds": {"iou_thr": NaN}}',
        b'{"thresholds": {"iou_thr": 1%s}}' % (b'0' * 400),  # no float has that size
    ],
)
def test_settings_that_are_none(page, png, body):
    client = page.client()
    client.upload(png)
    status, told = client.send('POST', f'/api/{client.token}/result', body)
    assert status == 400 and b'error' in told


@pytest.mark.parametrize(
    'path',
    [
        '/../serve.py',
        '/..%2fserve.py',
        '/%2e%2e/app.py',
        '/app.py',
        '/page/index.html',
        '//etc/passwd',
        '/api/examples/99',
        '/api/examples/-1',
        '/api/short/photo',
    ],
)
def test_there_are_no_other_files(page, path):
    status, body = page.client().send('GET', path)
    assert status in (400, 404) and b'import' not in body


def test_every_file_that_the_page_names_is_there(page):
    _, body = page.client().send('GET', '/')
    for name in ('page.css', 'page.js', 'controls.js', 'inside.js', 'tables.js'):
        status, _ = page.client().send('GET', f'/{name}')
        assert status == 200
    assert b'http' not in body, 'nothing comes from elsewhere'
    status, example = page.client().send('GET', '/api/examples/0')
    assert Image.open(io.BytesIO(example)).size == (640, 480)


def test_pages_of_other_sites_may_not_ask(page, png):
    client = page.client()
    path = f'/api/{client.token}/photo'
    status, _ = client.send('POST', path, png, Origin='http://elsewhere.example')
    assert status == 403
    status, _ = client.send('GET', '/', Host='elsewhere.example')
    assert status == 400
    own = f'http://127.0.0.1:{page.port}'
    assert client.send('POST', path, png, Origin=own)[0] == 200
    # No address at all: the answer is a refusal too, not an error of the server.
    assert client.send('POST', path, png, Origin='http://[')[0] == 403


@pytest.mark.parametrize(
    ('site', 'dest', 'expected'),
    [
        ('cross-site', 'image', 403),
        ('same-site', 'iframe', 403),  # another port of this machine
        ('cross-site', 'document', 200),  # a link
        ('same-origin', 'image', 200),
        ('none', 'document', 200),
    ],
)
def test_pictures_and_frames_of_other_sites_may_not_ask(page, site, dest, expected):
    named = {'Sec-Fetch-Site': site, 'Sec-Fetch-Dest': dest}
    assert page.client().send('GET', '/', **named)[0] == expected


def test_many_pages_without_a_photo_do_not_push_one_out_that_has_one(page, png):
    client = page.client()
    client.upload(png)
    for i in range(MOST_SESSIONS + 1):
        page.service.sessions.open(f'{i:020}')
    assert b'"number":1' in client.send('GET', f'/api/{client.token}/photo')[1]


def test_an_upload_that_never_ends_gives_its_place_back(serve, model, png, monkeypatch):
    monkeypatch.setattr('serving.app.MOST_SECONDS', 0.5)
    with serve([model], waiting=1) as page:
        client = page.client()
        with socket.create_connection(('127.0.0.1', page.port), timeout=30) as slow:
            head = f'POST /api/{client.token}/photo HTTP/1.1\r\nHost: 127.0.0.1\r\n'
            slow.sendall(f'{head}Content-Length: 1000\r\n\r\nabc'.encode())
            assert slow.recv(100).startswith(b'HTTP/1.1 408')
            assert client.upload(png)[0] == 200


def test_results_that_nobody_waited_for_are_counted_as_held(slow, png):
    client = slow.client()
    client.upload(png)
    before = client.about()['held']
    for merging in (10, 20, 30):
        body = json.dumps(dict(merging=merging)).encode()
        with socket.create_connection(('127.0.0.1', slow.port)) as gone:
            head = f'POST /api/{client.token}/result HTTP/1.1\r\nHost: 127.0.0.1\r\n'
            gone.sendall(f'{head}Content-Length: {len(body)}\r\n\r\n'.encode() + body)
            said = b''
            while b'waiting' not in said:  # however it comes in pieces
                part = gone.recv(10_000)
                assert part, said  # the end
                said += part
    slow.model.gate.set()
    session = slow.service.sessions.open(client.token)
    # The line is empty a moment before the last result arrives.
    until(lambda: not session.pending and len(session.outputs) == 3)
    held = sum(outputs.nbytes for outputs in session.outputs.values())
    assert client.about()['held'] == before + held > before
    (found,) = client.ask(merging=20)
    assert 'rows' in found and found['passes'] == 3


def test_ten_at_once_wait_in_line(slow, png):
    """All are answered, one network run at a time, and know their place."""
    clients = [slow.client(f'{i}' * 20) for i in range(10)]
    for join in [later(client.upload, png) for client in clients]:
        assert join.join()[0] == 200
    asked = [later(client.ask) for client in clients]
    until(lambda: len(slow.service.line.tickets) == 10)
    slow.model.gate.set()
    answers = [one.join() for one in asked]
    assert all('rows' in answer[-1] for answer in answers)
    first = sorted(answer[0]['waiting'] for answer in answers)
    assert first == list(range(10))
    assert slow.service.passes == 10
    for answer in answers:
        places = [line['waiting'] for line in answer[:-1]]
        assert places == sorted(places, reverse=True)


def test_a_full_line(serve, model, png):
    with serve([Slow(model)], waiting=1) as page:
        one, two = page.client('1' * 20), page.client('2' * 20)
        one.upload(png), two.upload(png)
        asked = later(one.ask)
        assert page.service.models[0].entered.wait(60)
        (told,) = two.ask()
        assert 'others are waiting' in told['error']
        page.service.models[0].gate.set()
        assert 'rows' in asked.join()[-1]


def test_a_click_during_a_run_takes_its_place(slow, png, pixels):
    """Another photo, another threshold: the last one is what counts."""
    client = slow.client()
    client.upload(png)
    first = later(client.ask)
    assert slow.model.entered.wait(60)
    again = later(client.ask, thresholds=dict(object_mask_thr=0.5))  # joins the run
    until(lambda: listeners(slow) == 2)
    status, photo = client.upload(encoded(pixels[:48]))
    assert status == 200 and photo['number'] == 2
    newest = later(client.ask)
    until(lambda: len(slow.service.line.tickets) == 2)
    slow.model.gate.set()
    for old in (first, again):
        assert 'another photo' in old.join()[-1]['error']
    found = newest.join()[-1]
    assert (found['width'], found['height']) == (SHAPE[1], 48)
    assert slow.service.passes == 2


def test_a_reload_during_a_run_finds_it_again(slow, png):
    client = slow.client()
    client.upload(png)
    body = b'{}'
    with socket.create_connection(('127.0.0.1', slow.port)) as gone:
        head = f'POST /api/{client.token}/result HTTP/1.1\r\nHost: 127.0.0.1\r\n'
        gone.sendall(f'{head}Content-Length: {len(body)}\r\n\r\n'.encode() + body)
        assert slow.model.entered.wait(60)
    until(lambda: listeners(slow) == 0)
    status, held = client.send('GET', f'/api/{client.token}/photo')
    assert json.loads(held)['number'] == 1
    asked = later(client.ask)
    until(lambda: listeners(slow) == 1)
    slow.model.gate.set()
    assert 'rows' in asked.join()[-1]
    assert slow.service.passes == 1


def test_what_is_unexpected_is_told_too(serve, model, png, monkeypatch):
    monkeypatch.setattr(model, 'finish', lambda *args: 1 / 0)
    with serve([model]) as page:
        page.client().upload(png)
        told = page.client().ask()[-1]
        assert told['status'] == 500 and 'went wrong' in told['error']
        monkeypatch.undo()
        assert 'rows' in page.client().ask()[-1]


def test_a_photo_is_forgotten(page, png):
    client = page.client()
    client.upload(png)
    client.ask()
    assert client.about()['held'] > 0
    client.send('POST', f'/api/{client.token}/forget')
    assert client.about()['held'] == 0 and client.about()['waiting'] == 0
