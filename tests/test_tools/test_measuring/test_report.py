"""Tables and picture of the miniature."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from measuring.reproduction.cost import Costs
from measuring.reproduction.plan import TABLES
from measuring.reproduction.report import Report, in_order, mean_and_spread

TABLE = TABLES['annealing']


class FakeRun:
    """A run with the results it is given: test -> scores."""

    iterations = 50

    def __init__(self, config, seed, results, names=('PQ', 'mIoU')):
        self.config, self.seed, self.results = config, seed, results
        self.names = names

    def result(self, test):
        if test not in self.results:
            return None
        return dict(zip(self.names, self.results[test], strict=True))


@pytest.fixture
def report():
    masked, unmasked, never, annealed = TABLE.rows
    runs = [
        FakeRun(masked.train, 0, {masked.test: (80, 85), unmasked.test: (30, 40)}),
        FakeRun(masked.train, 1, {masked.test: (84, 86), unmasked.test: (50, 45)}),
        FakeRun(annealed.train, 0, {annealed.test: (82, 86)}),
        FakeRun(annealed.train, 1, {}),  # not finished
        FakeRun(never.train, 0, {}),
    ]
    costs = Costs(
        {masked.test: dict(parameters=945416, gflops=0.0754)},
        {masked.test: 118.4, annealed.test: 141.0},
        'two cores',
    )
    return Report([TABLE], runs, '64 scenes', costs)


def cells(report):
    lines = [line for line in report.markdown().splitlines() if line[:1] == '|']
    table = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    return table[0], {tuple(line[:2]): line for line in table[2:]}


def test_table(report):
    headings, rows = cells(report)
    column = {name: headings.index(name) for name in headings}
    row = rows['masked', 'masked']
    # (80 + 84) / 2 and sqrt((2 ** 2 + 2 ** 2) / 1).
    assert row[column['PQ, measured']] == '82.0 ± 2.8 (n = 2)'
    assert row[column['mIoU, measured']] == '85.5 ± 0.7 (n = 2)'
    assert row[column['images/s, measured']] == '118'
    assert row[column['parameters, counted']] == '945,416'
    assert row[column['GFLOPs, counted']] == '0.075'
    assert row[column['PQ, quoted']] == '56.2'
    assert row[column['FPS, quoted']] == '61'
    row = rows['masked', 'unmasked']
    assert row[column['PQ, measured']] == '40.0 ± 14.1 (n = 2)'
    assert row[column['images/s, measured']] == '141'
    row = rows['annealed', 'unmasked']
    assert row[column['PQ, measured']] == '82.0 (n = 1)'
    row = rows['never masked', 'unmasked']
    assert row[column['PQ, measured']] == '-'
    assert row[column['PQ, quoted']] == '53.2'


def test_quoted_and_measured_share_no_column(report):
    headings, _ = cells(report)
    assert len({*headings}) == len(headings)
    kinds = [heading.rpartition(', ')[2] for heading in headings[2:]]
    assert {*kinds} == {'measured', 'counted', 'quoted'}


def test_orders_are_told_as_they_are(report):
    text = report.markdown()
    assert (
        'measured: masked -> masked = annealed -> unmasked > masked -> unmasked.'
        in text
    )
    # Of the same rows: one of them is not measured yet.
    assert (
        'quoted: masked -> masked > annealed -> unmasked > masked -> unmasked.' in text
    )
    assert in_order({'a': 1.0, 'b': 3.0, 'c': 1.0}) == 'b > a = c'
    # One of three has one seed only.
    assert 'The measured means are not of equally many seeds.' in text


def test_orders_of_equally_many_seeds_need_no_remark(report):
    report.runs = [run for run in report.runs if run.seed == 0]
    text = report.markdown()
    assert 'PQ, measured:' in text and 'equally many' not in text


def test_no_order_of_nothing(report):
    for run in report.runs:
        run.results = dict.fromkeys(run.results, (0.0, 1.0))
    text = report.markdown()
    assert 'there is no order' in text and 'PQ, measured:' not in text


def test_out_of_distribution(tmp_path):
    table = TABLES['ood']
    names = table.scores
    runs = [
        FakeRun(row.train, seed, {row.test: [80 + seed, 50, 10 + 10 * at]}, names)
        for at, row in enumerate(table.rows)
        for seed in (0, 1)
    ]
    report = Report([table], runs, '64 scenes')
    text = report.markdown()
    lines = [line for line in text.splitlines() if line[:1] == '|']
    headings, zero = ([c.strip() for c in lines[i].split('|')[1:-1]] for i in (0, 2))
    column = {name: headings.index(name) for name in headings}
    for name, measured, quoted in zip(
        names,
        ('80.5 ± 0.7', '50.0 ± 0.0', '10.0 ± 0.0'),
        (84.5, 78.0, 68.7),
        strict=True,
    ):
        assert zero[column[f'{name}, measured']] == f'{measured} (n = 2)'
        assert zero[column[f'{name}, quoted']] == str(quoted)
    first, second = (row.name for row in table.rows)
    assert f'AUPRC of unknown objects, measured: {second} > {first}.' in text
    assert f'AUPRC of unknown objects, quoted: {second} > {first}.' in text
    assert f'mIoU out of distribution, measured: {first} = {second}.' in text
    assert 'BRAVO' in text and 'COCO' not in text
    assert Image.open(report.write(tmp_path)[2]).width > 100


def test_nothing_measured(tmp_path):
    runs = [FakeRun(row.train, 0, {}) for row in TABLE.rows]
    report = Report([TABLE], runs, '64 scenes')
    assert 'PQ: not enough is measured yet' in report.markdown()
    assert [path.name for path in report.write(tmp_path)] == [
        'results.md',
        'results.json',
        'results.png',
    ]


def test_files(report, tmp_path):
    text, content, picture = report.write(Path(tmp_path))
    assert text.read_text() == report.markdown()
    (table,) = json.loads(content.read_text())['tables']
    first = table['rows'][0]
    assert first['measured']['PQ'] == {'0': 80, '1': 84}
    assert first['measured']['images_per_second'] == 118.4
    assert first['quoted']['PQ'] == 56.2
    pixels = np.asarray(Image.open(picture).convert('RGB'), int)
    # Both colours are there: points of PQ, points of mIoU.
    for colour in ((200, 85, 61), (31, 111, 139)):
        assert (abs(pixels - colour).sum(-1) < 30).sum() > 100


@pytest.mark.parametrize(
    ('values', 'text'),
    [([], '-'), ([50], '50.0 (n = 1)'), ([1, 2, 3], '2.0 ± 1.0 (n = 3)')],
)
def test_mean_and_spread(values, text):
    assert mean_and_spread(values) == text
