"""The tables of the miniature: Markdown, JSON and a picture.

Measured and published figures never share a column.
"""

import itertools
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from eomt_mm.files import atomic_path

from ..output import markdown_table, write_json
from .cost import Costs
from .picture import draw_scores
from .plan import Row, Table
from .runs import SCORES, Run

EXPLAINED = (
    'Measured: {setting}. Scores are means over the seeds ± standard deviation; '
    'differences of that size mean nothing. Images per second are those of the network '
    'alone, one image at a time on {machine}, all in turn. Counted: parameters '
    'and operations of the same networks. Quoted is the paper (arXiv 2503.19108): '
    'DINOv2 ViT-L, COCO panoptic, 640 x 640, an H100.'
)
WIDTH = 88


@dataclass
class Report:
    """All figures so far.

    Attributes:
        tables (Sequence[Table]): The selected tables.
        runs (Sequence[Run]): All runs, finished or not.
        setting (str): Data and length of the trainings, for a reader.
        costs (Costs): Costs of the networks.
    """

    tables: Sequence[Table]
    runs: Sequence[Run]
    setting: str
    costs: Costs = field(default_factory=Costs)

    def write(self, folder: Path) -> list[Path]:
        """Write all files, each whole or not at all.

        Args:
            folder (Path): Folder of the files.

        Returns:
            list[Path]: results.md, results.json and results.png.
        """
        text, content, picture = (
            folder / f'results.{suffix}' for suffix in ('md', 'json', 'png')
        )
        with atomic_path(text) as partial:
            partial.write_text(self.markdown())
        write_json(content, self.content())
        draw_scores(
            picture,
            {
                table.title: {
                    row.name: {name: self.scores(row, name) for name in SCORES}
                    for row in table.rows
                }
                for table in self.tables
            },
        )
        return [text, content, picture]

    def markdown(self) -> str:
        """Format all tables, with notes for the reader."""
        facts = EXPLAINED.format(setting=self.setting, machine=self.costs.machine)
        parts = ["# The paper's tables in miniature", textwrap.fill(facts, WIDTH)]
        for table in self.tables:
            parts += [f'## {table.title}', self._table(table), self._order(table)]
        return '\n\n'.join(parts) + '\n'

    def content(self) -> dict:
        """Return all tables, with the scores of each seed."""
        return dict(
            setting=self.setting,
            machine=self.costs.machine,
            tables=[
                dict(
                    title=table.title,
                    rows=[
                        dict(
                            names=row.names,
                            trained=row.train,
                            tested=row.test,
                            iterations=self._runs(row)[0].iterations,
                            measured=dict(
                                **{name: self.scores(row, name) for name in SCORES},
                                images_per_second=self.costs.speeds.get(row.test),
                            ),
                            counted=self.costs.counted.get(row.test),
                            quoted=asdict(row.quoted),
                        )
                        for row in table.rows
                    ],
                )
                for table in self.tables
            ],
        )

    def scores(self, row: Row, name: str) -> dict[int, float]:
        """Return the available scores of a row in percent, by seed.

        Args:
            row (Row): Row of a table.
            name (str): 'PQ' or 'mIoU'.
        """
        results = {run.seed: run.result(row.test) for run in self._runs(row)}
        return {seed: result[name] for seed, result in results.items() if result}

    def _runs(self, row: Row) -> list[Run]:
        return [run for run in self.runs if run.config == row.train]

    def _table(self, table: Table) -> str:
        headings = [
            *table.columns,
            *(f'{name}, measured' for name in SCORES),
            'images/s, measured',
            'parameters, counted',
            'GFLOPs, counted',
            'PQ, quoted',
            'FPS, quoted',
            'parameters, quoted',
            'GFLOPs, quoted',
        ]
        return markdown_table(headings, [self._cells(row) for row in table.rows])

    def _cells(self, row: Row) -> list[str]:
        speed, counted = (
            self.costs.speeds.get(row.test),
            self.costs.counted.get(row.test, {}),
        )
        quoted = row.quoted
        return [
            *row.names,
            *(
                mean_and_spread(list(self.scores(row, name).values()))
                for name in SCORES
            ),
            f'{speed:.0f}' if speed else '-',
            f'{counted["parameters"]:,}' if 'parameters' in counted else '-',
            f'{counted["gflops"]:.3f}' if 'gflops' in counted else '-',
            f'{quoted.pq}',
            f'{quoted.fps}',
            f'{quoted.parameters} M',
            f'{quoted.gflops}',
        ]

    def _order(self, table: Table) -> str:
        """Describe both orders in words, if they exist."""
        measured = {row.name: self.scores(row, 'PQ') for row in table.rows}
        means = {
            name: statistics.fmean(scores.values())
            for name, scores in measured.items()
            if scores
        }
        quoted = {row.name: row.quoted.pq for row in table.rows if row.name in means}
        if len(means) < 2:
            return 'Too little is measured yet for an order.'
        if not any(means.values()):
            return 'No network has found anything: there is no order.'
        lines = [
            f'PQ, {which}: {in_order(scores)}.'
            for which, scores in (('measured', means), ('quoted', quoted))
        ]
        if len({len(measured[name]) for name in means}) > 1:
            lines.append('The measured means are not of equally many seeds.')
        return '\\\n'.join(lines)


def in_order(scores: Mapping[str, float]) -> str:
    """Order names from the highest score to the lowest, equal ones joined by '='."""
    names = sorted(scores, key=scores.get, reverse=True)
    text = names[0]
    for before, name in itertools.pairwise(names):
        sign = '=' if scores[name] == scores[before] else '>'
        text += f' {sign} {name}'
    return text


def mean_and_spread(values: Sequence[float]) -> str:
    """Format mean ± standard deviation of a sample, and its size."""
    if not values:
        return '-'
    if len(values) == 1:
        return f'{values[0]:.1f} (n = 1)'
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    return f'{mean:.1f} ± {spread:.1f} (n = {len(values)})'
