"""timm's plain ViTs, built with attention that can be masked.

Two families of blocks: timm's `VisionTransformer` (ViT, DeiT-III, DINOv2) with learned
position codes, and its `Eva` (EVA-02, DINOv3) with rotary ones.
"""

import timm
from timm.layers import RotaryEmbeddingCat, RotaryEmbeddingDinoV3
from timm.models import is_model_in_modules
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from eomt_mm.errors import UserError

from .masked_attention import RotarySplitAttention, SplitAttention

WAY_OUT = 'take a vit_*, deit3_*, *_dinov2, *_dinov3_qkvb or eva02_* model'
# EoMT reads normalised tokens: the norm comes after the last block, not after a
# pooling. The grid is fixed, so that rotary codes are computed once.
EVA_ARGS = dict(
    use_post_transformer_norm=True, use_fc_norm=False, dynamic_img_size=False
)


def build_vit(arch: str, timm_args: dict) -> VisionTransformer | Eva:
    """Build a timm ViT with maskable attention; refuse models that would run wrongly.

    Args:
        arch (str): Name of a timm model.
        timm_args (dict): Arguments of the model: `img_size`, `patch_size`, ...

    Returns:
        VisionTransformer | Eva: A ViT with random weights. Its `rope` is None if the
        model has no rotary codes.

    Raises:
        UserError: If the model is not a plain ViT.
    """
    try:
        if is_model_in_modules(arch, 'eva'):
            return _build_eva(arch, timm_args)
        return _build_vision_transformer(arch, timm_args)
    except (TypeError, AssertionError) as error:
        raise UserError(
            f'timm cannot build {arch!r} as a plain ViT with {timm_args}: {error}. '
            f'Look at backbone.timm_args, or {WAY_OUT}'
        ) from error


def _build_vision_transformer(arch: str, timm_args: dict) -> VisionTransformer:
    vit = timm.create_model(arch, num_classes=0, attn_layer=SplitAttention, **timm_args)
    # Exact types: a subclass may have a forward pass that ignores the mask.
    plain = isinstance(vit, VisionTransformer) and all(
        type(block) is Block for block in vit.blocks
    )
    if not plain or vit.pos_embed is None:
        raise UserError(
            f'timm model {arch!r} ({type(vit).__name__}) is not a plain ViT with '
            f'learned position codes: {WAY_OUT}'
        )
    if isinstance(vit.norm, nn.Identity):
        raise UserError(
            f'timm model {arch!r} has no norm after its last block (models for '
            'pooled tokens, such as vit_*_gap_*, have it after the pooling), and EoMT '
            f'reads normalised tokens: {WAY_OUT} without "gap" in its name'
        )
    vit.rope = None
    return vit


def _build_eva(arch: str, timm_args: dict) -> Eva:
    vit = timm.create_model(arch, num_classes=0, **EVA_ARGS, **timm_args)
    # Exact types: a subclass may have a forward pass that ignores the mask.
    plain = all(
        type(block) is EvaBlock
        and type(block.attn) is EvaAttention
        and block.attn.gate is None
        for block in vit.blocks
    )
    # Rotary codes per block (mixed) are not supported; they are subclasses too.
    axial = type(vit.rope) in (type(None), RotaryEmbeddingCat, RotaryEmbeddingDinoV3)
    if not plain or not axial:
        raise UserError(
            f'timm model {arch!r} has blocks or rotary codes of another kind than '
            f'EVA-02 and DINOv3: {WAY_OUT}'
        )
    for block in vit.blocks:
        # Eva, unlike VisionTransformer, takes no attn_layer, so the class is swapped.
        # Only the forward pass is replaced: parameters, their start and names remain.
        block.attn.__class__ = RotarySplitAttention
    return vit
