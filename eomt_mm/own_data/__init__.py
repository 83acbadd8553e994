"""A user's own data: what a folder holds, its numbers, and a config that trains on it.

`finding.py` looks for annotation files and pairs of photos and label maps, `survey.py`
counts what is in them, `proposal.py` writes the config.
"""

from .finding import Found, Split, find
from .proposal import BACKBONES, Proposal, config_text, propose
from .survey import Survey, survey
from .tiff_bands import describe_bands

__all__ = [
    'BACKBONES',
    'Found',
    'Proposal',
    'Split',
    'Survey',
    'config_text',
    'describe_bands',
    'find',
    'propose',
    'survey',
]
