"""The `eomt_mm.QueryViT` of a config: a `QueryViT`, or one that merges tokens."""

from mmengine.logging import print_log

from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from ..plain_vit import PlainViT
from ..query_vit import QueryViT
from .merging_vit import MergingViT


@MODELS.register_module(name='QueryViT')
def build_backbone(token_merging: dict | None = None, **options) -> PlainViT:
    """Build the backbone that a config describes.

    Args:
        token_merging (dict, optional): Config of a `TokenMerging`.
        **options: Arguments of `QueryViT`. Configs of the last release ask for a ViT
            without queries by `num_queries=0`.

    Returns:
        PlainViT: A `QueryViT`, a `MergingViT` with `token_merging`, or a plain ViT.
    """
    if options.get('num_queries') == 0:
        if token_merging:
            raise UserError(
                'token_merging needs queries, but num_queries is 0: set one of them'
            )
        print_log(
            "backbone 'eomt_mm.QueryViT' with num_queries=0 is 'eomt_mm.PlainViT' now",
            logger='current',
        )
        for key in ('num_queries', 'num_blocks', 'mask_probs', 'deep_supervision'):
            options.pop(key, None)
        return PlainViT(**options)
    if token_merging:
        return MergingViT(token_merging=token_merging, **options)
    return QueryViT(**options)
