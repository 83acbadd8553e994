"""The core: the network and its loss, in torch and timm alone.

`segmentor` is the bridge to MMSegmentation. It is not imported here, so that the
core runs where that framework is absent; the registry finds it at the first look-up.
"""

from .build import build_backbone
from .criterion import Criterion, Target
from .mask_head import MaskHead
from .plain_vit import PlainViT
from .query_vit import QueryViT
from .token_merging import ALGM, MergingViT, ToMe

__all__ = [
    'ALGM',
    'Criterion',
    'MaskHead',
    'MergingViT',
    'PlainViT',
    'QueryViT',
    'Target',
    'ToMe',
    'build_backbone',
]
