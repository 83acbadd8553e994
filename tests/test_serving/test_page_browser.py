"""The page in a real browser: a photo, thresholds, downloads, a phone, the keyboard."""

import base64
import json
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from measuring import browser
from visitor import Client

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(browser.missing()), reason=browser.missing()),
]
SLIDE = """
const slider = document.getElementById(arguments[0]);
slider.value = arguments[1];
slider.dispatchEvent(new Event('input'));
slider.dispatchEvent(new Event('change'));
"""

BRING = """
const [how, text] = arguments;
const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const brought = new DataTransfer();
brought.items.add(new File([bytes], 'brought.png', {type: 'image/png'}));
const event = how === 'drop'
  ? new DragEvent('drop', {dataTransfer: brought, bubbles: true})
  : new ClipboardEvent('paste', {clipboardData: brought, bubbles: true});
document.body.dispatchEvent(event);
"""


@pytest.fixture(scope='module')
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp('downloads')


@pytest.fixture(scope='module')
def driven(downloads):
    with browser.chromium(downloads, '--window-size=1280,900') as found:
        yield found


@pytest.fixture(scope='module')
def photo(downloads, png):
    path = downloads / 'photo.png'
    path.write_bytes(png)
    return path


class Page:
    """The page as a user has it."""

    def __init__(self, driven, process):
        self.driven, self.address = driven, f'http://127.0.0.1:{process.port}'

    def open(self):
        self.driven.get(self.address)
        self.until(lambda: self.run('return document.body.dataset.ready'))
        return self

    def run(self, script, *args):
        return self.driven.execute_script(script, *args)

    def find(self, selector):
        return self.driven.find_element('css selector', selector)

    def until(self, condition):
        for _ in range(600):
            if found := condition():
                return found
            time.sleep(0.05)
        pytest.fail(f'waited in vain; the page says: {self.said()}')

    def said(self):
        return self.find('#status').text, self.find('#error').text

    def choose(self, path):
        self.find('#file').send_keys(str(path))
        return self.until(lambda: 'segment' in self.said()[0] or self.said()[1])

    def count(self):
        return int(self.find('#count').text)

    def errors(self):
        return [e for e in self.driven.get_log('browser') if e['level'] == 'SEVERE']


@pytest.fixture
def page(driven, process):
    found = Page(driven, process).open()
    yield found
    found.run('sessionStorage.clear()')


def test_photo_threshold_and_download(page, process, photo, pixels, downloads, tiny):
    """The number of segments changes without a pass; the PNG is the inferencer's."""
    from mmdet.apis import DetInferencer

    page.choose(photo)
    before, passes = page.count(), process.client.about()['passes']
    assert before > 0
    page.run(SLIDE, 'object_mask_thr', 0.99)
    page.until(lambda: page.count() == 0)
    page.find('#reset').click()
    page.until(lambda: page.count() == before)
    assert process.client.about()['passes'] == passes

    page.find('#painted').click()
    path = downloads / 'photo_painted.png'
    page.until(path.exists)
    model = tiny('panoptic')
    infer = DetInferencer(str(model.config), str(model.checkpoint), device='cpu')
    painted = infer(str(photo), return_vis=True)['visualization'][0]
    assert (np.asarray(Image.open(path)) == painted).all()
    page.find('#coco').click()
    page.until((downloads / 'photo.json').exists)
    content = json.loads((downloads / 'photo.json').read_text())
    assert len(content['annotations'][0]['segments_info']) == before
    assert page.errors() == []


def test_the_canvas_has_the_colours_of_the_legend(page, photo, process):
    page.choose(photo)
    page.run(SLIDE, 'opacity', 100)
    for name in ('borders', 'names'):
        page.find(f'#{name}').click()
    script = """
    const canvas = document.getElementById('canvas');
    const {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
    return [width, height, Array.from(data)];
    """
    width, height, shown = page.run(script)
    shown = np.array(shown, np.uint8).reshape(height, width, 4)[..., :3]
    swatches = page.run(
        "return Array.from(document.querySelectorAll('#table .swatch'),"
        ' (s) => s.style.background.match(/\\d+/g).map(Number))'
    )
    token = page.run("return sessionStorage.getItem('token')")
    *_, told = Client(process.port, token).ask()
    packed = zlib.decompress(base64.b64decode(told['index']))
    index = np.frombuffer(packed, '<u2').reshape(height, width)
    for number, row in enumerate(told['rows'], start=1):
        assert row['colour'] in swatches
        assert (shown[index == number] == row['colour']).all()


def test_legend_and_keyboard(page, photo):
    """An entry of the legend, reached by the keyboard, dims all other segments."""
    page.choose(photo)
    picture = "return document.getElementById('canvas').toDataURL()"
    before = page.run(picture)
    entry = page.find('#legend button')
    page.run('arguments[0].focus()', entry)
    lit = page.run(picture)
    assert lit != before
    entry.send_keys(' ')
    assert entry.get_attribute('aria-pressed') == 'true'
    page.run('arguments[0].blur()', entry)
    assert page.run(picture) == lit
    entry.send_keys(' ')
    page.run('arguments[0].blur()', entry)
    assert page.run(picture) == before
    for selector in ('#file', '#opacity', '#split', 'summary', '#examples button'):
        element = page.find(selector)
        assert page.run('return arguments[0].tabIndex', element) >= 0, selector


def test_the_pointer_shows_class_and_score(page, photo):
    from selenium.webdriver.common.action_chains import ActionChains

    page.choose(photo)
    ActionChains(page.driven).move_to_element(page.find('#canvas')).perform()
    words = page.until(lambda: page.find('#tip').text)
    names = page.find('#legend').text
    name, _, score = words.partition(', score ')
    assert words == 'nothing' or (name in names and 0 <= float(score) <= 1)


def test_two_models_and_the_slider(page, photo):
    page.choose(photo)
    page.find('#compare summary').click()
    page.until(lambda: page.find('#slider').is_displayed())
    picture = "return document.getElementById('canvas').toDataURL()"
    ends = []
    for place in (0, 100):
        page.run(SLIDE, 'split', place)
        ends.append(page.run(picture))
    assert ends[0] != ends[1]
    assert 'left' in page.find('#times').text and 'right' in page.find('#times').text


def test_inside_the_network(page, photo):
    page.choose(photo)
    page.find('#insideBox summary').click()
    page.find('#insideGo').click()
    cells = page.until(
        lambda: page.driven.find_elements('css selector', '#inside td button')
    )
    assert len(cells) == 8 * 3
    cells[0].click()
    page.until(lambda: 'bright' in page.said()[0])
    page.find('#inside th button').click()
    page.until(lambda: 'segment' in page.said()[0])
    assert page.find('#sideA .step').get_attribute('value') == '0'
    assert page.errors() == []


def test_inside_the_network_sends_a_photo_again_that_was_let_go(page, photo):
    page.choose(photo)
    page.run("""
        const token = sessionStorage.getItem('token');
        return fetch(`/api/${token}/forget`, {method: 'POST'});
    """)
    page.find('#insideBox summary').click()
    page.find('#insideGo').click()
    page.until(lambda: page.driven.find_elements('css selector', '#inside td button'))
    assert page.said()[1] == ''
    # The browser notes the first answer, and would show it to the next test.
    assert all('410' in error['message'] for error in page.errors())


def test_confidence_of_the_second_model(page, photo):
    page.choose(photo)
    assert not page.find('#confidence').is_displayed()
    page.run(
        "const s = document.querySelector('#sideA .model'); s.value = 1;"
        "s.dispatchEvent(new Event('change'))"
    )
    page.until(lambda: page.find('#confidence').is_displayed())
    page.run(
        "const s = document.getElementById('confidence'); s.value = 'entropy';"
        "s.dispatchEvent(new Event('change'))"
    )
    page.until(lambda: 'segment' in page.said()[0])
    assert page.errors() == []


def test_a_file_that_is_no_photo_and_the_next_one(page, photo, downloads):
    text = downloads / 'text.jpg'
    text.write_text('no photo')
    page.choose(text)
    words = page.until(lambda: page.said()[1])
    assert 'not a photo' in words and words.endswith('.')
    page.choose(photo)
    page.until(lambda: 'segment' in page.said()[0])
    assert not page.find('#error').is_displayed()


@pytest.mark.parametrize('how', ['drop', 'paste'])
def test_a_photo_is_dropped_or_pasted(page, png, how):
    page.run(BRING, how, base64.b64encode(png).decode())
    page.until(lambda: 'segment' in page.said()[0])
    assert 'brought.png, 128 × 96' in page.find('#caption').text


def test_a_reload_shows_the_photo_again(page, photo, process):
    page.choose(photo)
    before, passes = page.count(), process.client.about()['passes']
    page.open()
    page.until(lambda: 'segment' in page.said()[0])
    assert page.count() == before
    assert process.client.about()['passes'] == passes


def test_an_example_and_a_photo_that_is_forgotten(page):
    page.find('#examples button').click()
    page.until(lambda: 'segment' in page.said()[0])
    assert 'scene_1.png, 640 × 480' in page.find('#caption').text
    page.find('#forget').click()
    page.until(lambda: 'forgotten' in page.said()[0])
    assert not page.find('#viewer').is_displayed()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_phone(page, photo, scheme):
    """Nothing is wider than the screen, and the colours are those of the scheme."""
    features = [dict(name='prefers-color-scheme', value=scheme)]
    screen = dict(width=390, height=844, deviceScaleFactor=1, mobile=True)
    page.driven.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=features))
    page.driven.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
    try:
        page.open().choose(photo)
        width = page.run('return document.documentElement.scrollWidth')
        ground = page.run('return getComputedStyle(document.body).backgroundColor')
    finally:
        page.driven.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
        page.driven.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[]))
    assert width <= 390
    red = int(ground.partition('(')[2].partition(',')[0])
    assert (red < 60) == (scheme == 'dark')
