"""Token merging: fewer tokens for the same image, at inference.

`merge`, `windows`, `bipartite`, `batching`, `attention` and `rotary` are pure tensor
functions; `algm` and `tome` are methods behind the interface of `base`; `merged_vit` is
the way of merged tokens through a `QueryViT`.
"""

from .algm import ALGM
from .base import MergePoint, Merges, TokenMerging
from .tome import ToMe

__all__ = ['ALGM', 'MergePoint', 'Merges', 'ToMe', 'TokenMerging']
