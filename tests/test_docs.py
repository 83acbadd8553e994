"""The documentation names only what exists."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [
    'README.md',
    'docs/parity.md',
    'docs/ladder.md',
    'configs/eomt/README.md',
    'configs/ladder/README.md',
]


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


@pytest.mark.parametrize('family', ['eomt', 'ladder'])
def test_every_config_is_listed(family):
    listed = (ROOT / f'configs/{family}/README.md').read_text()
    for config in (ROOT / f'configs/{family}').glob('*.py'):
        assert f'({config.name})' in listed, config.name


def test_counts_of_the_ladder_are_those_of_its_metafile():
    models = yaml.safe_load((ROOT / 'configs/ladder/metafile.yml').read_text())
    counts = {m['Name']: m['Metadata']['Parameters'] for m in models['Models']}
    for page in ('docs/ladder.md', 'configs/ladder/README.md'):
        rows = re.findall(
            r'\| (\d+(?:,\d{3})+) \|.*\((?:.*/)?(\w+)\.py\)', (ROOT / page).read_text()
        )
        assert len(rows) >= 6
        for count, name in rows:
            assert int(count.replace(',', '')) == counts[name], name


def test_every_test_that_the_parity_page_names_exists():
    sources = '\n'.join(p.read_text() for p in (ROOT / 'tests').rglob('*.py'))
    files = {p.name for p in (ROOT / 'tests').rglob('*.py')}
    for name in re.findall(r'`(test_\w+)`', (ROOT / 'docs/parity.md').read_text()):
        assert f'def {name}(' in sources, name
    for name in re.findall(r'(test_\w+\.py)`', (ROOT / 'docs/parity.md').read_text()):
        assert name in files, name
