"""The comparison as Markdown, CSV, JSON and one HTML page.

Quoted and measured figures never share a column.
"""

import csv
import html
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eomt_mm.files import atomic_path

from ..output import markdown_table
from .model import Model
from .picture import as_svg, draw


def _figure(value: float | None, form: str, factor: float = 1) -> str:
    return '' if value is None else format(value / factor, form)


COLUMNS: dict[str, Callable[[Model], str]] = {
    'model': lambda m: m.label,
    'input': lambda m: ' x '.join(map(str, m.size or ())),
    'parameters (M), counted': lambda m: _figure(m.parameters, '.2f', 1e6),
    'GFLOPs, counted': lambda m: _figure(m.operations, '.4g', 1e9),
    'time (ms), measured': lambda m: _figure(m.milliseconds, '.1f'),
    'images/s, measured': lambda m: _figure(m.images_per_second, '.3g'),
    'memory (MiB), measured': lambda m: _figure(m.mebibytes, '.0f'),
    'score, measured': lambda m: str(m.measured or ''),
    'measured on': lambda m: m.measured.dataset if m.measured else '',
    'score, quoted': lambda m: str(m.quoted or ''),
    'quoted from': lambda m: (
        f'{m.quoted.source}, {m.quoted.dataset}' if m.quoted else ''
    ),
    'remarks': lambda m: '; '.join(m.remarks),
}
NOTES = (
    'Counted and measured is the network alone, without reading, preprocessing and '
    'post-processing; a multiplication with its addition is one operation. All were '
    'timed in turn; the median counts. Memory is what a forward pass needs beside the '
    'weights.',
    'Measured scores are those of tools/test.py: at the input size of the config, in '
    'single precision, not compiled. The size, batch, precision and compilation of '
    'speed do not change them.',
    'Quoted scores were published with the configs, at the input sizes and with the '
    'hardware of their publication; none of them was measured here.',
)


@dataclass
class Comparison:
    """The figures of all models.

    Attributes:
        models (Sequence[Model]): The rows.
        command (Sequence[str]): The command.
        setting (str): Machine and conditions, for a reader.
    """

    models: Sequence[Model]
    command: Sequence[str]
    setting: str

    def write(self, folder: Path) -> list[Path]:
        """Write all files, each whole or not at all.

        Args:
            folder (Path): Folder of the files.

        Returns:
            list[Path]: compare.md, compare.csv, compare.json, compare.html, and
            compare.png if there is a score.
        """
        writers = {
            'md': lambda path: path.write_text(self.markdown(), encoding='utf-8'),
            'csv': self._write_csv,
            'json': self._write_json,
            'html': lambda path: path.write_text(self.html(), encoding='utf-8'),
        }
        figure = draw(self.models)
        if figure:
            writers['png'] = lambda path: figure.savefig(path, format='png')
        paths = []
        for suffix, write in writers.items():
            paths.append(folder / f'compare.{suffix}')
            with atomic_path(paths[-1]) as partial:
                write(partial)
        return paths

    def columns(self) -> dict[str, list[str]]:
        """Return cells by heading, without empty columns."""
        cells = {
            heading: [cell(model) for model in self.models]
            for heading, cell in COLUMNS.items()
        }
        return {heading: column for heading, column in cells.items() if any(column)}

    def markdown(self) -> str:
        """Format the table, with notes for the reader."""
        columns = self.columns()
        table = markdown_table([*columns], [*zip(*columns.values(), strict=True)])
        notes = '\n\n'.join((f'{self.setting}.', *NOTES))
        command = f'```bash\n{shlex.join(self.command)}\n```'
        return f'{table}\n\n{notes}\n\n{command}\n'

    def html(self) -> str:
        """Format a page that needs no other file."""
        columns = self.columns()
        head = ''.join(f'<th>{html.escape(heading)}</th>' for heading in columns)
        rows = '\n'.join(
            f'<tr>{"".join(f"<td>{html.escape(cell)}</td>" for cell in row)}</tr>'
            for row in zip(*columns.values(), strict=True)
        )
        notes = ''.join(
            f'<p>{html.escape(n)}</p>' for n in (f'{self.setting}.', *NOTES)
        )
        figure = draw(self.models)
        picture = (
            as_svg(figure) if figure else '<p>No model has a score and a speed.</p>'
        )
        return PAGE.format(
            picture=picture,
            head=head,
            rows=rows,
            notes=notes,
            command=html.escape(shlex.join(self.command)),
        )

    def _write_csv(self, path: Path) -> None:
        with path.open('w', newline='', encoding='utf-8') as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for model in self.models:
                writer.writerow([cell(model) for cell in COLUMNS.values()])

    def _write_json(self, path: Path) -> None:
        content = dict(
            command=list(self.command),
            setting=self.setting,
            models=[asdict(model) for model in self.models],
        )
        path.write_text(json.dumps(content, indent=2) + '\n')


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Segmentation models side by side</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #33373d; margin: 2rem auto;
       max-width: 72rem; padding: 0 1rem; }}
svg {{ max-width: 100%; height: auto; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 13px; }}
th, td {{ padding: .35rem .7rem; text-align: left; border-bottom: 1px solid #e4e4e0; }}
td {{ font-variant-numeric: tabular-nums; vertical-align: top; }}
pre {{ background: #f6f6f3; padding: .8rem; overflow-x: auto; }}
</style>
<h1>Segmentation models side by side</h1>
{picture}
<div class="table"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
{notes}
<pre>{command}</pre>
</html>
"""
