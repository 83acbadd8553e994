"""The config inside a checkpoint: Python's literals, read without running anything."""

import ast
import difflib
from itertools import islice

# COCO's config has 6,000 characters, one with LVIS' 1203 classes 100,000.
MAX_LENGTH = 1_000_000
# Differs between a run and its resumption by itself.
_OF_THE_CALL = ('load_from', 'resume', 'work_dir', 'launcher')
_SHOWN = 5


class NotLiteral(ValueError):
    """A text that holds more than assignments of literals."""


def read_literals(text: str) -> dict:
    """Read `name = literal` lines, as MMEngine writes a config into a checkpoint.

    Args:
        text (str): Text of the config. `dict(a=1)` counts as a literal.

    Returns:
        dict: Values by name.

    Raises:
        NotLiteral: If it holds anything else, or is too long or too deeply nested.
    """
    tree = parse(text)
    try:
        return {
            line.targets[0].id: ast.literal_eval(_WithoutCalls().visit(line.value))
            for line in tree.body
        }
    except RecursionError as error:
        raise NotLiteral('nested too deep') from error
    except (ValueError, AttributeError, TypeError) as error:
        raise NotLiteral(str(error)[:100]) from error


def parse(text: str) -> ast.Module:
    """Parse a text, which may hold anything, without running it.

    Raises:
        NotLiteral: If it is not Python, or is too long or too deeply nested.
    """
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        raise NotLiteral(f'no text of at most {MAX_LENGTH:,} characters')
    try:
        return ast.parse(text)
    # Deep nesting exhausts the parser, or the stack of the reader.
    except (RecursionError, MemoryError) as error:
        raise NotLiteral('nested too deep') from error
    except (SyntaxError, ValueError) as error:
        raise NotLiteral(str(error)[:100]) from error


class _WithoutCalls(ast.NodeTransformer):
    """Turns `dict(a=1)` and `dict({'a': 1})` into `{'a': 1}`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: D102, N802
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == 'dict':
            names = [keyword.arg for keyword in node.keywords]
            if not node.args and None not in names:
                values = [keyword.value for keyword in node.keywords]
                return ast.Dict([ast.Constant(name) for name in names], values)
            if len(node.args) == 1 and not names:
                return node.args[0]
        return node  # which `literal_eval` refuses


def changed_lines(before: str, after: str) -> list[str]:
    """List the first lines in which two configs differ, as `- old` and `+ new`.

    Args:
        before (str): Text of the config in a checkpoint, compared as text.
        after (str): Text of the config of this run.
    """
    texts = [
        [line for line in text.splitlines() if not line.startswith(_OF_THE_CALL)]
        for text in (before[: len(after) * 2 + 1000], after)
    ]
    changes = (
        f'{line[0]} {line[1:].strip()[:80]}'
        for line in difflib.unified_diff(*texts, n=0, lineterm='')
        if not line.startswith(('---', '+++', '@@'))
    )
    return list(islice(changes, _SHOWN))
