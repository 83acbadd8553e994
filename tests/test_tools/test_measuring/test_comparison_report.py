"""Table, page and picture of a comparison."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest

from measuring.comparison.model import Model, Score
from measuring.comparison.picture import draw, families, panels_of
from measuring.comparison.report import COLUMNS, Comparison

PAPER = 'arXiv 2503.19108, Table 3'


@pytest.fixture
def comparison():
    def model(label, parameters, speed, **scores):
        return Model(
            label,
            f'{label}.py',
            size=(640, 640),
            parameters=parameters,
            operations=68_000_000_000,
            milliseconds=1000 / speed,
            images_per_second=speed,
            mebibytes=512.4,
            **scores,
        )

    models = [
        model('EoMT-S', 23_975_942, 8.0, quoted=Score('PQ', 44.7, 'COCO', PAPER)),
        model('EoMT-L', 316_695_686, 0.4, quoted=Score('PQ', 56.0, 'COCO', PAPER)),
        model(
            'SegFormer <B0>',
            3_752_694,
            20.0,
            measured=Score('mIoU', 37.4, 'ADE20K'),
            quoted=Score('mIoU', 37.41, 'ADE20K', 'metafile of mmseg'),
        ),
        Model('broken', 'broken.py', remarks=["network: No module | 'mmcv._ext'"]),
    ]
    command = ['python', 'compare.py', 'a b.py']
    return Comparison(models, command, 'two cores, torch 2.11.0')


def test_markdown(comparison):
    lines = comparison.markdown().splitlines()
    table = [[c.strip() for c in line.split('|')[1:-1]] for line in lines[:6]]
    headings = table[0]
    small = dict(zip(headings, table[2], strict=True))
    assert small == {
        'model': 'EoMT-S',
        'input': '640 x 640',
        'parameters (M), counted': '23.98',
        'GFLOPs, counted': '68',
        'time (ms), measured': '125.0',
        'images/s, measured': '8',
        'memory (MiB), measured': '512',
        'score, measured': '',
        'measured on': '',
        'score, quoted': 'PQ 44.7',
        'quoted from': f'{PAPER}, COCO',
        'remarks': '',
    }
    broken = dict(zip(headings, table[5], strict=True))
    # A bar would end the cell.
    assert broken['remarks'] == "network: No module / 'mmcv._ext'"
    assert broken['parameters (M), counted'] == ''
    assert "python compare.py 'a b.py'" in comparison.markdown()
    assert 'precision and compilation of speed do not change' in comparison.markdown()


def test_columns_that_say_nothing_are_left_out(comparison):
    for model in comparison.models:
        model.measured, model.mebibytes = None, None
    assert {*COLUMNS} - {*comparison.columns()} == {
        'score, measured',
        'measured on',
        'memory (MiB), measured',
    }


class Page(HTMLParser):
    """Cells of the table, and whatever would be loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.loaded, self.tag = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        if tag in ('td', 'th'):
            self.cells.append('')
        names = ('src', 'href', 'xlink:href')
        self.loaded += [v for k, v in attrs if k in names and not v.startswith('#')]

    def handle_endtag(self, tag):
        self.tag = None

    def handle_data(self, data):
        if self.tag in ('td', 'th'):
            self.cells[-1] += data


def test_page_needs_no_other_file(comparison):
    text = comparison.html()
    page = Page(text)
    assert page.loaded == [] and '@import' not in text and '<script' not in text
    columns = comparison.columns()
    rows = [*zip(*columns.values(), strict=True)]
    assert page.cells == [*columns, *(cell for row in rows for cell in row)]
    assert 'SegFormer <B0>' in page.cells  # escaped on the way
    assert re.search(r'<svg[^>]*>', text) and 'PQ on COCO, quoted' in text


def test_files(comparison, tmp_path):
    paths = comparison.write(tmp_path)
    assert [path.suffix for path in paths] == ['.md', '.csv', '.json', '.html', '.png']
    with paths[1].open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == [*COLUMNS]
    assert [row['model'] for row in rows] == [m.label for m in comparison.models]
    assert rows[3]['remarks'] == "network: No module | 'mmcv._ext'"
    models = json.loads(paths[2].read_text())['models']
    assert models[0]['parameters'] == 23_975_942
    assert models[0]['quoted']['source'] == PAPER and models[0]['measured'] is None


def test_without_scores_there_is_no_picture(comparison, tmp_path):
    for model in comparison.models:
        model.quoted = model.measured = None
    assert 'compare.png' not in [path.name for path in comparison.write(tmp_path)]
    assert 'No model has a score and a speed' in comparison.html()


def test_quoted_and_measured_scores_share_no_panel(comparison):
    panels = {
        p.title: [m.label for m, _ in p.points] for p in panels_of(comparison.models)
    }
    assert panels == {
        'mIoU on ADE20K, measured': ['SegFormer <B0>'],
        'PQ on COCO, quoted': ['EoMT-S', 'EoMT-L'],
        'mIoU on ADE20K, quoted': ['SegFormer <B0>'],
    }


def test_sizes_of_a_family_are_joined(comparison):
    assert families(['EoMT-S', 'A-B-S', 'EoMT-L', 'Mask2Former-R50', 'x']) == {
        'EoMT': ['EoMT-S', 'EoMT-L'],
        'A-B-S': ['A-B-S'],
        'Mask2Former-R50': ['Mask2Former-R50'],
        'x': ['x'],
    }
    ax = draw(comparison.models).axes[1]
    (line, *_) = ax.get_lines()
    assert line.get_xydata().tolist() == [[0.4, 56.0], [8.0, 44.7]]
    # A factor of twenty: so wide a range is logarithmic.
    assert ax.get_xscale() == 'log'
    assert {text.get_text() for text in ax.texts} == {'S', 'L'}
