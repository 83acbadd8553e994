"""Take the pictures of docs/page.md: the page in Chromium, on synthetic scenes.

    python tools/analysis_tools/page_pictures.py CONFIG CHECKPOINT --out docs/images

Writes `page.png`, `page_compare.png` (half of the tokens merged at the right),
`page_inside.png` and `page_phone.png` (dark).
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from measure_page import page
from PIL import Image

from eomt_mm import cli
from eomt_mm.errors import UserError
from eomt_mm.files import atomic_path
from measuring import browser
from measuring.browser import chromium

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serving.config_model import ConfigModel  # noqa: E402

WINDOW = 1180, 860
PHONE = 390, 844
WIDTH = 900  # px of a picture
COLOURS = 192
PATIENCE = 60  # seconds for a result
SET = """
const field = document.querySelector(arguments[0]);
field.value = arguments[1];
field.dispatchEvent(new Event('input'));
field.dispatchEvent(new Event('change'));
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Take pictures of the page')
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', type=Path, required=True, help='folder for pictures')
    parser.add_argument('--example', type=cli.not_negative, default=0)
    args = cli.parse_args(parser, argv)
    if lack := browser.missing():
        raise UserError(f'pictures need a browser: {lack}')
    return args


def main(argv: list[str] | None = None) -> list[Path]:
    """Take the pictures.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        list[Path]: The files written.

    Raises:
        UserError: The config or the checkpoint is wrong, or there is no browser.
    """
    args = parse_args(argv)
    cfg = cli.load_config(args)
    cli.check_checkpoint(args.checkpoint)
    model = ConfigModel(cfg, args.checkpoint, Path(args.config).stem)
    written = []
    with TemporaryDirectory() as folder, page(model) as port:
        with chromium(Path(folder), f'--window-size={WINDOW[0]},{WINDOW[1]}') as driven:
            for name, prepare in SCENES.items():
                Shot(driven, port, args.example).take(prepare, args.out / name)
                written.append(args.out / name)
    print(*written)
    return written


class Shot:
    """One picture.

    Args:
        driven (webdriver.Chrome): The browser.
        port (int): Of the page.
        example (int): The scene to take.
    """

    def __init__(self, driven, port: int, example: int) -> None:
        self.driven, self.port, self.example = driven, port, example

    def take(self, prepare: Callable[['Shot'], None], path: Path) -> None:
        """Open the page, choose the scene, prepare, and write."""
        for _ in range(2):  # the second time as someone new
            self.driven.get(f'http://127.0.0.1:{self.port}')
            self.driven.execute_script('sessionStorage.clear()')
        self.until("document.querySelectorAll('#examples button').length")
        self.driven.execute_script(
            "document.querySelectorAll('#examples button')[arguments[0]].click()",
            self.example,
        )
        self.until_result()
        prepare(self)
        picture = Image.open(io.BytesIO(self.driven.get_screenshot_as_png()))
        width = min(WIDTH, picture.width)
        size = width, round(picture.height * width / picture.width)
        picture = picture.convert('RGB').resize(size, Image.LANCZOS)
        picture = picture.quantize(COLOURS, dither=Image.Dither.NONE)
        with atomic_path(path) as partial:
            picture.save(partial, optimize=True)

    def until(self, condition: str) -> None:
        """Wait for a condition in JavaScript."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driven, PATIENCE).until(
            lambda driven: driven.execute_script(f'return {condition}')
        )

    def until_result(self) -> None:
        """Wait for the segments."""
        self.until("/segment/.test(document.getElementById('status').textContent)")

    def run(self, script: str, *args) -> None:
        """Run some JavaScript."""
        self.driven.execute_script(script, *args)


def whole(shot: Shot) -> None:
    """Highlight nothing."""


def compare(shot: Shot) -> None:
    """Merge half of the tokens at the right."""
    shot.run(SET, '#sideB .merging', 'any')
    shot.run("document.getElementById('compare').open = true")
    shot.until("!document.getElementById('slider').hidden")
    shot.run(SET, '#split', 50)


def inside(shot: Shot) -> None:
    """Look inside, and scroll there."""
    shot.run("document.getElementById('insideBox').open = true")
    shot.run("document.getElementById('insideGo').click()")
    shot.until("document.querySelectorAll('#inside td button').length")
    shot.run("document.getElementById('insideBox').scrollIntoView()")


def phone(shot: Shot) -> None:
    """Make the window narrow, and dark."""
    screen = dict(width=PHONE[0], height=PHONE[1], deviceScaleFactor=1, mobile=True)
    shot.driven.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
    dark = [dict(name='prefers-color-scheme', value='dark')]
    shot.driven.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=dark))


SCENES = {
    'page.png': whole,
    'page_compare.png': compare,
    'page_inside.png': inside,
    'page_phone.png': phone,
}


if __name__ == '__main__':
    sys.exit(cli.run(main))
