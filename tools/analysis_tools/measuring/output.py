"""Tables for Markdown files, and JSON files."""

import json
from collections.abc import Sequence
from pathlib import Path

from eomt_mm.files import atomic_path


def write_json(path: str | Path, content: object) -> None:
    """Write a file, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + '\n')


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table.

    Args:
        headings (Sequence[str]): Headings of the columns.
        rows (Sequence[Sequence[str]]): Cells; a bar or a line break in one is
            replaced.

    Returns:
        str: Lines without a final line break.
    """
    lines = [headings, ['---'] * len(headings), *rows]
    return '\n'.join(f'| {" | ".join(map(_cell, line))} |' for line in lines)


def _cell(text: str) -> str:
    return ' '.join(text.replace('|', '/').split())
