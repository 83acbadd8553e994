"""Token merging: fewer tokens for the same image, at inference.

`algm` and `tome` are the methods, with the interface of `base`; `windows` and
`bipartite` are the merges that they propose. `merge`, `attention` and `rotary` act on
tokens, `batching` groups images, `merging_vit` runs a `QueryViT` on merged tokens, and
`backbone` builds it.
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
