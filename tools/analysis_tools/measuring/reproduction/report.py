"""The tables of the miniature: Markdown, JSON and a picture.

Measured and published figures never share a column.
"""

import itertools
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eomt_mm.files import atomic_path

from ..output import markdown_table, write_json
from .cost import Costs
from .picture import draw_scores
from .plan import Row, Table
from .runs import Run

EXPLAINED = (
    'Measured: {setting}. Scores are means over the seeds ± standard deviation; '
    'differences of that size mean nothing. Images per second are those of the network '
    'alone, one image at a time on {machine}, all in turn. Counted: parameters '
    'and operations of the same networks. Quoted is the paper, arXiv 2503.19108.'
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
                    row.name: {name: self.scores(row, name) for name in table.scores}
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
            source = f'Quoted: {table.source}.'
            parts += [f'## {table.title}', source, self._table(table)]
            parts.append(self._orders(table))
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
                                **{
                                    name: self.scores(row, name)
                                    for name in table.scores
                                },
                                images_per_second=self.costs.speeds.get(row.test),
                            ),
                            counted=self.costs.counted.get(row.test),
                            quoted=dict(row.quoted),
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
            row (Row): Of a table.
            name (str): One of its table's.
        """
        results = {run.seed: run.result(row.test) for run in self._runs(row)}
        return {seed: result[name] for seed, result in results.items() if result}

    def _runs(self, row: Row) -> list[Run]:
        return [run for run in self.runs if run.config == row.train]

    def _table(self, table: Table) -> str:
        headings = [
            *table.columns,
            *(f'{name}, measured' for name in table.scores),
            'images/s, measured',
            'parameters, counted',
            'GFLOPs, counted',
            *(f'{name}, quoted' for name in table.rows[0].quoted),
        ]
        return markdown_table(headings, [self._cells(table, row) for row in table.rows])

    def _cells(self, table: Table, row: Row) -> list[str]:
        speed, counted = (
            self.costs.speeds.get(row.test),
            self.costs.counted.get(row.test, {}),
        )
        return [
            *row.names,
            *(
                mean_and_spread(list(self.scores(row, name).values()))
                for name in table.scores
            ),
            f'{speed:.0f}' if speed else '-',
            f'{counted["parameters"]:,}' if 'parameters' in counted else '-',
            f'{counted["gflops"]:.3f}' if 'gflops' in counted else '-',
            *map(str, row.quoted.values()),
        ]

    def _orders(self, table: Table) -> str:
        """Both orders in words, by each score that is quoted too."""
        quoted = [name for name in table.scores if name in table.rows[0].quoted]
        return '\n\n'.join(self._order(table, name) for name in quoted)

    def _order(self, table: Table, name: str) -> str:
        """Both orders by one score, as long as there is one."""
        measured = {row.name: self.scores(row, name) for row in table.rows}
        means = {
            row: statistics.fmean(scores.values())
            for row, scores in measured.items()
            if scores
        }
        quoted = {row.name: row.quoted[name] for row in table.rows if row.name in means}
        if len(means) < 2:
            return f'{name}: not enough is measured yet to tell an order.'
        if not any(means.values()):
            return f'{name}: no network has found anything: there is no order to tell.'
        lines = [
            f'{name}, {which}: {in_order(scores)}.'
            for which, scores in (('measured', means), ('quoted', quoted))
        ]
        if len({len(measured[row]) for row in means}) > 1:
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
