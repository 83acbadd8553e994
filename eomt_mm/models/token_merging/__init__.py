"""Token merging: fewer tokens for the same image, at inference.

`base` is the interface of a method; `algm` and `tome` are methods, `build` builds the
one that a config names and `calibration` reads ALGM's threshold from a file. Methods
propose windows (`window_merges`) and pairs (`bipartite`), which `ranks` numbers.

`merging_vit` runs the ViT: `batching` groups the images of a batch, `merge` averages
and unmerges tokens, `attention` weighs them, `rotary` finds their position codes.
"""

from .algm import ALGM
from .base import MergePoint, Merges, TokenMerging
from .merging_vit import MergingViT
from .tome import ToMe

__all__ = [
    'ALGM',
    'MergePoint',
    'Merges',
    'MergingViT',
    'ToMe',
    'TokenMerging',
]
