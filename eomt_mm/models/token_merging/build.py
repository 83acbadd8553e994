"""Build the method that `token_merging` of a config names."""

import inspect

from eomt_mm.errors import UserError
from eomt_mm.registry import class_of

from .base import TokenMerging

_EXPECTED = (
    "expected a dict with a type, 'eomt_mm.ALGM' or 'eomt_mm.ToMe', such as "
    '--cfg-options model.backbone.token_merging.type=eomt_mm.ALGM '
    'model.backbone.token_merging.threshold=0.9'
)


def method_class(options: dict) -> type[TokenMerging]:
    """Look up the method that a config names.

    Args:
        options (dict): `token_merging` of a config.

    Raises:
        UserError: If the config names no method.
    """
    if not isinstance(options, dict) or 'type' not in options:
        raise UserError(f'token_merging is {options!r}: {_EXPECTED}')
    found = class_of(options)
    if not (inspect.isclass(found) and issubclass(found, TokenMerging)):
        raise UserError(
            f'token_merging.type is {options["type"]!r}, which is not a method of '
            f'token merging: {_EXPECTED}'
        )
    return found


def build_merging(options: dict) -> TokenMerging:
    """Build a method.

    Args:
        options (dict): Its `type` and its options.

    Raises:
        UserError: If the method is unknown or does not take these options.
    """
    method = method_class(options)
    # Left over where `_delete_=True` finds nothing to replace.
    options = {k: v for k, v in options.items() if k not in ('type', '_delete_')}
    signature = inspect.signature(method)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise UserError(
            f'token_merging: {method.__name__} {error}; its options are '
            f'{", ".join(signature.parameters)}. Where a config already has another '
            'method, --cfg-options model.backbone.token_merging._delete_=True drops '
            'the options of that one'
        ) from error
    return method(**options)
