"""The table and the file of a benchmark."""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import torch

from eomt_mm.compat import PAIRS, installed_version
from eomt_mm.version import __version__

from .output import markdown_table, write_json

LINUX = sys.platform == 'linux'
PACKAGES = ('torch', 'timm', 'transformers', 'mmcv', 'mmdet', 'mmsegmentation')


@dataclass
class Row:
    """One contender at one task.

    Attributes:
        case (str): The work.
        contender (str): The implementation.
        milliseconds (float, optional): Median time of a call.
        low (float, optional): First quartile of the times.
        high (float, optional): Third quartile of the times.
        images_per_second (float, optional): Images per second at the median.
        relative_time (float, optional): Time relative to the first contender of the
            case: above 1 is slower.
        mebibytes (float, optional): Peak memory of a call.
        giga_operations (float, optional): Multiply-accumulates of a call.
        giga_rate (float, optional): Multiply-accumulates in a second of a large matrix
            product.
        share_of_limit (float, optional): Share of that rate.
        calls (list[float]): Milliseconds of each measured call.
        results (str): Agreement with the results of the first contender.
        error (str, optional): Reason of a failure.
    """

    case: str
    contender: str
    milliseconds: float | None = None
    low: float | None = None
    high: float | None = None
    images_per_second: float | None = None
    relative_time: float | None = None
    mebibytes: float | None = None
    giga_operations: float | None = None
    giga_rate: float | None = None
    share_of_limit: float | None = None
    calls: list[float] = field(default_factory=list)
    results: str = ''
    error: str | None = None


COLUMNS = {
    'time (ms)': lambda row: _figure(row.milliseconds, '.1f'),
    'half within': lambda row: (
        f'{row.low:.1f}-{row.high:.1f}' if row.milliseconds is not None else ''
    ),
    'images/s': lambda row: _figure(row.images_per_second, '.3g'),
    'time / first': lambda row: _figure(row.relative_time, '.2f'),
    'peak (MiB)': lambda row: _figure(row.mebibytes, '.0f'),
    'of the limit': lambda row: _figure(row.share_of_limit, '.0%'),
    'results': lambda row: row.error or row.results,
}


def _figure(value: float | None, form: str) -> str:
    return '' if value is None else format(value, form)


def markdown(rows: Sequence[Row]) -> str:
    """Format the contenders of one case as a table, without empty columns."""
    cells = {name: [cell(row) for row in rows] for name, cell in COLUMNS.items()}
    cells = {name: column for name, column in cells.items() if any(column)}
    names = [row.contender for row in rows]
    table = markdown_table(['', *cells], [*zip(names, *cells.values(), strict=True)])
    return f'\n**{rows[0].case}**\n\n{table}'


def machine(device: torch.device) -> dict[str, str | int]:
    """Describe the conditions of figures: processor, threads, versions, date."""
    found = {
        'date': f'{datetime.now():%Y-%m-%d %H:%M}',
        'device': str(device),
        'processor': _processor(),
        'cores': len(os.sched_getaffinity(0)) if LINUX else os.cpu_count(),
        'threads': torch.get_num_threads(),
        'eomt_mm': __version__,
        'python': platform.python_version(),
    }
    if device.type == 'cuda':
        found['gpu'] = torch.cuda.get_device_name(device)
        found['cuda'] = torch.version.cuda
    versions = {name: installed_version(name) for name in (*PACKAGES, *PAIRS.values())}
    return found | {name: version for name, version in versions.items() if version}


def _processor() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def write_rows(
    path: str, rows: Sequence[Row], argv: Sequence[str], about: dict
) -> None:
    """Write all figures, whole or not at all.

    Args:
        path (str): The file.
        rows (Sequence[Row]): All rows.
        argv (Sequence[str]): The command.
        about (dict): The machine and other conditions of the run.
    """
    rows = [asdict(row) for row in rows]
    write_json(path, dict(command=shlex.join(argv), about=about, rows=rows))
