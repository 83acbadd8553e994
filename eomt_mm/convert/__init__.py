"""Converting checkpoints: official and Hugging Face's to this package's, and back.

It needs torch, safetensors and MMEngine; a framework only where a config is built.
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
