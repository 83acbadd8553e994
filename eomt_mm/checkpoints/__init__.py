"""Checkpoints from anywhere, read as data and never executed."""

from .config_text import NotLiteral, changed_lines, parse, read_literals
from .content import (
    is_deepspeed_folder,
    refuse_other_optimizer,
    refuse_unresumable,
    weights_of,
)
from .reading import Meta, check_sums, config_of, read, refuse_nan

__all__ = [
    'Meta',
    'NotLiteral',
    'changed_lines',
    'check_sums',
    'config_of',
    'is_deepspeed_folder',
    'parse',
    'read',
    'read_literals',
    'refuse_nan',
    'refuse_other_optimizer',
    'refuse_unresumable',
    'weights_of',
]
