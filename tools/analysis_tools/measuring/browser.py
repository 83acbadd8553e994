"""Headless Chromium, driven by Selenium: for tests and measurements of the page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

NAMES = ('chromium', 'chromedriver')
# No sandbox: containers and root have none. No service of its own reaches out.
SWITCHES = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--hide-scrollbars',
)


def missing() -> str:
    """Say what a browser test lacks; nothing if it can run."""
    found = [name for name in NAMES if shutil.which(name) is None]
    try:
        import selenium  # noqa: F401
    except ModuleNotFoundError:
        found.append('selenium')
    return f'not installed: {", ".join(found)}' if found else ''


@contextmanager
def chromium(downloads: Path, *switches: str) -> Iterator:
    """Start a browser with a profile of its own, and end it.

    Args:
        downloads (Path): Folder for downloads.
        *switches (str): Of Chromium, besides `SWITCHES`.

    Yields:
        webdriver.Chrome: Selenium's.
    """
    from selenium import webdriver

    browser, driver = map(shutil.which, NAMES)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    preferences = {'download.default_directory': str(downloads)}
    options.add_experimental_option('prefs', preferences)
    with TemporaryDirectory(prefix='chromium') as profile:
        for switch in (*SWITCHES, *switches, f'--user-data-dir={profile}'):
            options.add_argument(switch)
        service = webdriver.ChromeService(driver)
        driven = webdriver.Chrome(options, service)
        try:
            yield driven
        finally:
            driven.quit()
