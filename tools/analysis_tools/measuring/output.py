"""Tables for Markdown files."""

from collections.abc import Sequence


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table.

    Args:
        headings (Sequence[str]): Of the columns.
        rows (Sequence[Sequence[str]]): Cells; a bar or a line break in one is
            replaced.

    Returns:
        str: Lines without a final line break.
    """
    lines = [headings, ['---'] * len(headings), *rows]
    return '\n'.join(f'| {" | ".join(map(_cell, line))} |' for line in lines)


def _cell(text: str) -> str:
    return ' '.join(text.replace('|', '/').split())
