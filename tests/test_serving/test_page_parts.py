"""Settings, segments, contrast, line and sessions, each by itself."""

import asyncio
import base64
import json
import math
import re
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_masks

from eomt_mm.datasets.scenes import PALETTE
from eomt_mm.errors import UserError
from eomt_mm.palettes import distinct_colours
from serving import line as lines
from serving.contrast import ENOUGH, ink, ratio, rgb
from serving.line import Line
from serving.outputs import Logits, Outputs
from serving.photo import Photo
from serving.ports import listen
from serving.saving import run_lengths
from serving.segments import describe, from_ids, from_masks, panoptic_scores
from serving.sessions import Sessions
from serving.settings import Run, parse

PAGE = Path(__file__).parents[2] / 'tools/serving/page'
MODEL = SimpleNamespace(
    name='m',
    dtypes=['fp32', 'bf16'],
    merging=['own', 'off', 'any'],
    steps=['before block 3', 'final'],
    confidences=['entropy'],
)
PLAIN = SimpleNamespace(
    name='p', dtypes=['fp32'], merging=['off'], steps=[], confidences=[]
)

# --- settings ----------------------------------------------------------------


def test_settings_default_to_those_of_the_model():
    run, view = parse({}, [MODEL])
    assert run == Run(merging='own') and view.thresholds == {} and view.step == -1
    run, view = parse(
        dict(merging=30, inside=True, step=0, thresholds=dict(iou_thr=0.5)), [MODEL]
    )
    assert run == Run(merging='off', inside=True)
    assert view.step == 0 and view.thresholds == dict(iou_thr=0.5)


@pytest.mark.parametrize(
    'asked, word',
    [
        (dict(model=1), 'model'),
        (dict(model=True), 'model'),
        (dict(dtype='fp8'), 'bf16'),
        (dict(merging=99), '80'),
        (dict(merging=[]), 'merging'),
        (dict(step=1), 'step'),
        (dict(thresholds=dict(iou_thr=math.nan)), 'iou_thr'),
        (dict(thresholds=dict(iou_thr='1')), 'iou_thr'),
        (dict(thresholds=dict(max_per_image=0)), 'max_per_image'),
        (dict(thresholds=dict(other=1)), 'object_mask_thr'),
        (dict(thresholds=[1]), 'thresholds'),
        (dict(confidence='none'), 'entropy'),
        ([], 'JSON object'),
    ],
)
def test_settings_that_the_model_does_not_have(asked, word):
    with pytest.raises(UserError, match=word):
        parse(asked, [MODEL])


@pytest.mark.parametrize('asked', [dict(inside=True), dict(merging=20)])
def test_settings_of_a_model_without_queries(asked):
    with pytest.raises(UserError, match='p '):
        parse(asked, [PLAIN])


# --- segments ----------------------------------------------------------------

IDS = np.full((40, 60), 9)  # void
IDS[:20] = 2  # stuff
IDS[20:, :30] = 1001
IDS[22:26, 2:10] = 2001


def test_segments_of_a_map():
    found = from_ids(IDS, 9, {1001: 0.75})
    assert [(r.label, r.number, r.area) for r in found.rows] == [
        (2, 0, 1200),
        (1, 1, 568),
        (1, 2, 32),
    ]
    assert [r.score for r in found.rows] == [None, 0.75, None]
    assert found.rows[2].box == (2, 22, 8, 4)
    assert (found.index[IDS == 9] == 0).all() and (found.index[IDS == 2001] == 3).all()


def test_the_surest_instance_is_on_top():
    one, two = np.zeros((2, 8, 8), bool)
    one[:4], two[2:] = True, True
    runs = [run_lengths(one), run_lengths(two)]
    found = from_masks([one, two], [0, 0], [0.9, 0.6], runs, (8, 8))
    assert [r.area for r in found.rows] == [32, 32] and found.index[3, 0] == 1
    assert [r.number for r in found.rows] == [1, 2]


def test_the_page_gets_the_map_and_names_in_wide_places():
    told = describe(from_ids(IDS, 9, {}), ['cat', 'dog', 'sky'], [[200, 40, 40]] * 3)
    content = zlib.decompress(base64.b64decode(told['index']))
    index = np.frombuffer(content, '<u2').reshape(told['height'], told['width'])
    for number, row in enumerate(told['rows'], start=1):
        x, y, depth = row['place']
        assert index[int(y), int(x)] == number and depth > 0
        assert row['share'] == (index == number).mean()
        assert ratio(rgb(row['ink']), row['colour']) >= ENOUGH
    json.dumps(told)


def test_nothing_is_found():
    told = describe(from_ids(np.full((4, 4), 9), 9, {}), ['cat'], [[0, 0, 0]])
    assert told['rows'] == []


def test_scores_are_those_of_the_owning_query():
    classes = np.full((3, 4), -9.0)
    classes[0, 1] = classes[1, 1] = classes[2, 2] = 9  # dog, dog, sky
    masks = np.full((3, 10, 15), -9.0)
    masks[0, 5:, :7] = math.log(3)  # probability 3/4
    masks[1, :2, :2] = 9  # another dog, elsewhere
    masks[2, :5] = 9
    ids = np.where(IDS == 2001, 1001, IDS)
    found = panoptic_scores(ids, 9, classes, masks, (40, 60), (40, 60))
    assert found.keys() == {2, 1001}
    assert found[2] > 0.99 and 0.6 < found[1001] <= 0.75


def test_runs_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for mask in (
        rng.random((7, 5)) < 0.5,
        np.zeros((3, 4), bool),
        np.ones((3, 4), bool),
    ):
        runs = run_lengths(mask)
        decoded = coco_masks.decode(coco_masks.frPyObjects(runs, *mask.shape))
        assert (decoded.astype(bool) == mask).all()


# --- contrast ----------------------------------------------------------------


def test_contrast_is_that_of_the_standard():
    assert ratio((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert ratio(rgb('#777777'), rgb('#ffffff')) == pytest.approx(4.48, abs=0.01)


def test_labels_are_legible_upon_every_colour():
    steps = range(0, 256, 15)
    colours = [(r, g, b) for r in steps for g in steps for b in steps]
    for colour in [*colours, *PALETTE, *distinct_colours(150)]:
        assert ratio(rgb(ink(colour)), colour) >= ENOUGH, colour


def test_words_of_the_page_are_legible_in_light_and_in_darkness():
    css = (PAGE / 'page.css').read_text()
    schemes = re.findall(r':root \{([^}]*)\}', css)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = {k: rgb(v) for k, v in re.findall(r'--([\w-]+): (#\w{6});', scheme)}
        for text in ('text', 'quiet', 'error'):
            for ground in ('ground', 'raised'):
                assert ratio(colours[text], colours[ground]) >= ENOUGH, (text, ground)
        assert ratio(colours['on-accent'], colours['accent']) >= ENOUGH
        for shape in ('line', 'accent'):  # WCAG 1.4.11: borders and focus
            assert ratio(colours[shape], colours['ground']) >= 3, shape


# --- line and sessions -------------------------------------------------------


def test_everyone_in_the_line_knows_their_place():
    async def scene():
        line, gate = Line(3), asyncio.Event()
        loop = asyncio.get_running_loop()
        waits = lambda: asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()  # noqa: E731
        first, second = line.enter(waits), line.enter(lambda: 2)
        third = line.enter(lambda: 1 / 0)
        with pytest.raises(UserError, match='3 others are waiting'):
            line.enter(lambda: 3)
        seen = []

        async def watch():
            async for place in line.places(third):
                seen.append(place)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.05)
        line.leave(second)
        await asyncio.sleep(0.05)
        gate.set()
        await watching
        line.close()
        assert seen == [2, 1, 0] and first.future.result() is True
        assert second.future.cancelled()
        assert isinstance(third.future.exception(), ZeroDivisionError)

    asyncio.run(scene())


def test_work_that_nobody_waits_for_is_left_out(monkeypatch):
    monkeypatch.setattr(lines, 'PATIENCE', 0)
    done = []

    async def scene():
        line = Line(3)
        ticket = line.enter(lambda: done.append(1))
        await asyncio.sleep(0.05)
        line.close()
        assert ticket.future.cancelled()

    asyncio.run(scene())
    assert not done


def held(bytes_):
    outputs = Outputs([Logits(np.zeros(bytes_, np.uint8), np.zeros(0))], (1, 1), (1, 1))
    return {Run(): outputs}


def test_what_was_used_least_recently_is_forgotten_first():
    sessions = Sessions(megabytes=1, minutes=1)
    one, two = (sessions.open(letter * 20) for letter in 'ab')
    one.outputs, two.outputs = held(600_000), held(600_000)
    sessions.trim(two)
    assert not one.outputs and two.outputs and sessions.nbytes == 600_000
    two.outputs = held(2_000_000)
    with pytest.raises(UserError, match='--max-held'):
        sessions.trim(two)
    assert sessions.nbytes == 0


def test_pages_that_are_not_used_are_forgotten():
    sessions = Sessions(megabytes=1, minutes=0)
    sessions.open('a' * 20).photo = Photo('p', np.zeros((4, 4, 3), np.uint8))
    sessions.expire()
    assert sessions.nbytes == 0


@pytest.mark.parametrize('token', ['', 'short', '../../../etc/passwd', 'a' * 65])
def test_tokens_are_those_of_the_page(token):
    with pytest.raises(UserError, match='load the page again'):
        Sessions(1, 1).open(token)


# --- ports -------------------------------------------------------------------


def test_a_port_in_use_and_the_next():
    first, _ = listen('127.0.0.1', 0)
    number = first.getsockname()[1]
    second, taken = listen('127.0.0.1', number)
    assert taken[0] == number and second.getsockname()[1] > number
    first.close(), second.close()


@pytest.mark.parametrize('host', ['no.such.name.invalid', '203.0.113.7'])
def test_a_host_that_is_not_here(host):
    with pytest.raises(UserError, match=f'--host {host}'):
        listen(host, 0)
