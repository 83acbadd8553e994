"""Token merging: fewer tokens for the same image, at inference.

`merge`, `windows`, `bipartite`, `batching`, `attention` and `rotary` are pure tensor
functions; `algm` and `tome` are methods behind the interface of `base`; `merging_vit`
runs a `QueryViT` on merged tokens.
"""

from .algm import ALGM
from .backbone import build_backbone
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
    'build_backbone',
]
