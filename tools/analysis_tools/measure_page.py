"""Measure what the page of `tools/serve.py` adds to the framework's inferencer.

    python tools/analysis_tools/measure_page.py CONFIG CHECKPOINT

A synthetic scene of 1280 x 960 pixels as a JPEG file. In every round the inferencer
predicts it from the disk, and the page gets it by HTTP, runs the network, and returns
the photo and the segments; both in one process, in turn. With `--browser`, Chromium
chooses the file, too, and the time lasts until it has painted. Differences are medians
of the rounds, and those of the fastest rounds, which other work on the machine disturbs
least. CPU time is that of this process, without Chromium.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmengine.device import get_device
from PIL import Image

from eomt_mm import cli
from eomt_mm.datasets.scenes import draw_scene
from eomt_mm.errors import UserError
from measuring import browser
from measuring.rows import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serving.config_model import ConfigModel  # noqa: E402

SIZE = 960, 1280
TOKEN = 'measure' * 3


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Time the page and the inferencer')
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--rounds', type=cli.positive, default=20)
    parser.add_argument('--browser', action='store_true', help='Chromium, too')
    args = cli.parse_args(parser, argv)
    if args.browser and (lack := browser.missing()):
        raise UserError(f'--browser: {lack}')
    return args


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Measure and print.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict[str, float]: Median seconds of each, and of the differences.

    Raises:
        UserError: The config or the checkpoint is wrong.
    """
    args = parse_args(argv)
    cfg = cli.load_config(args)
    cli.check_checkpoint(args.checkpoint)
    model = ConfigModel(cfg, args.checkpoint, 'measured')
    with TemporaryDirectory() as folder, page(model) as port:
        photo = Path(folder) / 'photo.jpg'
        scene = draw_scene(np.random.default_rng(0), SIZE)[0]
        Image.fromarray(scene).save(photo, quality=90)
        ways = {
            'inferencer': inferencer(args.config, args.checkpoint, photo),
            'page': by_http(port, photo.read_bytes()),
        }
        if not args.browser:
            return report(take_turns(ways, args.rounds))
        with browser.chromium(Path(folder)) as driven:
            ways['browser'] = by_browser(driven, port, photo)
            return report(take_turns(ways, args.rounds))


def take_turns(
    ways: dict[str, Callable[[], None]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Measure each way in every round, by clock and CPU; the first round warms up."""
    seconds = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start, cpu = time.perf_counter(), time.process_time()
            way()
            spent = time.perf_counter() - start, time.process_time() - cpu
            seconds[name].append(spent)
    return {name: spent[1:] for name, spent in seconds.items()}


def report(seconds: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """Print medians, and those of the differences round by round."""
    here = machine(torch.device(get_device()))
    conditions = ', '.join(str(here[name]) for name in ('processor', 'cores', 'date'))
    print(f'{conditions}, {len(seconds["page"])} rounds, {SIZE[1]} x {SIZE[0]}')
    columns = 'median', 'fastest', 'CPU'
    print(f'{"milliseconds":<24}' + ''.join(f'{name:>9}' for name in columns))
    found = {}
    for name, spent in seconds.items():
        (clock, cpu), fastest = np.median(spent, 0), min(spent)[0]
        found[name] = clock, fastest, cpu
    for name in seconds:
        if name != 'inferencer':
            clock, cpu = np.median(np.subtract(seconds[name], seconds['inferencer']), 0)
            fastest = found[name][1] - found['inferencer'][1]
            found[f'{name} - inferencer'] = clock, fastest, cpu
    for name, row in found.items():
        print(f'{name:<24}' + ''.join(f'{1000 * value:9.0f}' for value in row))
    return {name: float(clock) for name, (clock, *_) in found.items()}


def inferencer(config: str, checkpoint: str, photo: Path) -> Callable[[], None]:
    """Return the framework's own way: a file in, a data sample out."""
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer

    scope = cli.read_config(config).default_scope
    kind = DetInferencer if scope == 'mmdet' else MMSegInferencer
    infer = kind(config, checkpoint)
    infer.show_progress = False
    return lambda: infer(str(photo), return_datasamples=True)


@contextmanager
def page(model: ConfigModel) -> Iterator[int]:
    """Serve a model in this process; yields the port."""
    import uvicorn

    from serving.app import build_app
    from serving.ports import listen
    from serving.service import Limits, Service

    listening, _ = listen('127.0.0.1', 0)
    app = build_app(Service([model], Limits()), ['127.0.0.1'])
    server = uvicorn.Server(uvicorn.Config(app, log_level='error'))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def by_http(port: int, content: bytes) -> Callable[[], None]:
    """Return the page's way without the browser: all that this would fetch."""

    def send(method: str, path: str, body: bytes | None = None) -> bytes:
        connection.request(method, f'/api/{TOKEN}/{path}', body)
        return connection.getresponse().read()

    def run() -> None:
        photo = json.loads(send('POST', 'photo', content))
        send('GET', f'photo/{photo["number"]}.jpg')
        answer = json.loads(send('POST', 'result', b'{}').splitlines()[-1])
        if 'rows' not in answer:
            raise UserError(f'the page answers: {answer}')

    connection = HTTPConnection('127.0.0.1', port)
    return run


def by_browser(driven, port: int, photo: Path) -> Callable[[], None]:
    """Return the browser's way, until the picture is painted."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    driven.get(f'http://127.0.0.1:{port}')
    wait = WebDriverWait(driven, 60, poll_frequency=0.005)
    wait.until(lambda d: d.execute_script('return document.body.dataset.ready'))
    count = 'return Number(document.body.dataset.passes || 0)'

    def run() -> None:
        before = driven.execute_script(count)
        driven.find_element(By.ID, 'file').send_keys(str(photo))
        wait.until(lambda d: d.execute_script(count) > before)

    return run


if __name__ == '__main__':
    torch.set_grad_enabled(False)
    sys.exit(cli.run(main))
