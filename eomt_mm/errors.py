"""The one exception for what a user can mend, and lists in its messages."""


class UserError(ValueError):
    """Something in the user's hands is wrong: a config, a file, a value.

    The message is one readable line: the value seen, what was expected, the way
    out. The tools print it without a traceback and exit with status 2.
    """


def shorten(items: list[str], separator: str = ', ') -> str:
    """Name three items, and count the others."""
    more = f' and {len(items) - 3} more' if len(items) > 3 else ''
    return separator.join(items[:3]) + more
