"""The documentation names only what exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ['README.md', 'docs/parity.md', 'docs/speed.md', 'configs/eomt/README.md']


@pytest.mark.parametrize('page', PAGES)
def test_links_and_files_exist(page):
    text = (ROOT / page).read_text()
    assert '@@' not in text
    targets = re.findall(r'\]\((?!http)([^)#]+)\)', text)
    targets += re.findall(r'^!\[.*\]\((?!http)([^)]+)\)', text, re.MULTILINE)
    for target in targets:
        assert ((ROOT / page).parent / target).exists(), target
    for path in re.findall(r'\b((?:tools|configs)/[\w/]+\.(?:py|sh))', text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r'`(eomt_mm/[\w/]+(?:\.py|/))`', text):
        assert (ROOT / path).exists(), path


def test_every_config_is_listed():
    listed = (ROOT / 'configs/eomt/README.md').read_text()
    for config in (ROOT / 'configs/eomt').glob('*.py'):
        assert f'({config.name})' in listed, config.name


def test_every_test_that_the_parity_page_names_exists():
    sources = '\n'.join(p.read_text() for p in (ROOT / 'tests').rglob('*.py'))
    files = {p.name for p in (ROOT / 'tests').rglob('*.py')}
    for name in re.findall(r'`(test_\w+)`', (ROOT / 'docs/parity.md').read_text()):
        assert f'def {name}(' in sources, name
    for name in re.findall(r'(test_\w+\.py)`', (ROOT / 'docs/parity.md').read_text()):
        assert name in files, name
