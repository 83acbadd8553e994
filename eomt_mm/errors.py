"""The one exception for what a user can mend."""


class UserError(ValueError):
    """Something in the user's hands is wrong: a config, a file, a value.

    The message is one readable line: the value seen, what was expected, the way
    out. The tools print it without a traceback and exit with status 2.
    """
