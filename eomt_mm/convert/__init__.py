"""Conversion of official and Hugging Face checkpoints to this package's, and back.

It needs torch, safetensors and MMEngine; building a config also needs a framework.
"""

from .converter import Source, read_source, to_package, to_transformers
from .inventory import fitting_configs
from .reading import locate

__all__ = [
    'Source',
    'fitting_configs',
    'locate',
    'read_source',
    'to_package',
    'to_transformers',
]
