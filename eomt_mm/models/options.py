"""Options for testing: defaults, and no unknown ones.

MMEngine passes `test_cfg` on unchecked, so that a misspelt option would do nothing.
"""

from collections.abc import Mapping, Sequence

from eomt_mm.errors import UserError


def complete_test_cfg(
    given: Mapping | None, defaults: Mapping, others: Sequence[str] = ()
) -> dict:
    """Fill in `test_cfg`.

    Args:
        given (Mapping, optional): `test_cfg` of the config.
        defaults (Mapping): All options that have an effect.
        others (Sequence[str]): Options of the framework that are accepted as well.

    Returns:
        dict: `defaults`, overwritten and extended by `given`.

    Raises:
        UserError: Names the options that are unknown, and all known ones.
    """
    given = dict(given or {})
    unknown = [key for key in given if key not in (*defaults, *others)]
    if unknown:
        raise UserError(
            f'unknown test_cfg options: {", ".join(map(repr, unknown))}. '
            f'Known are: {", ".join((*defaults, *others))}'
        )
    return {**defaults, **given}
