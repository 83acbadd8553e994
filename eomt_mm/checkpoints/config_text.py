"""The config inside a checkpoint: Python's literals, read without running anything."""

import ast

# COCO's config has 6,000 characters, one with LVIS' 1203 classes 100,000.
MAX_LENGTH = 1_000_000


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
