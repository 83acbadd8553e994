"""The names under which EoMT is published, as tables that are read in both ways.

| layout | who writes it |
|---|---|
| official, DINOv2 | the authors' `.bin` and `.ckpt` files; the ViT has timm's names |
| official, DINOv3 | the same; the ViT has the names of `dinov3_vit` |
| `Eomt`, `Eomt` with SwiGLU | Hugging Face, DINOv2 |
| `EomtDinov3` | Hugging Face |
| `dinov3_vit` | Hugging Face: the pre-trained ViT alone |

The tables map them to this package's names: `backbone.*` is timm's, with
`backbone.queries`, and the head is `head.*`, which a segmentor calls `decode_head` and
a detector `panoptic_head`.

`layout.py` describes the patterns.
"""

from eomt_mm.errors import UserError, shorten

from .layout import Layout, Pair, below

OFFICIAL_HEAD: tuple[Pair, ...] = (
    ('backbone.queries', 'network.q.weight'),
    ('head.class_head.{leaf}', 'network.class_head.{leaf}'),
    ('head.mask_mlp.{i}.{leaf}', 'network.mask_head.{i}.{leaf}'),
    ('head.upscale.{i}.{rest}', 'network.upscale.{i}.{rest}'),
)
HF_HEAD: tuple[Pair, ...] = (
    ('backbone.queries', 'query.weight'),
    ('head.class_head.{leaf}', 'class_predictor.{leaf}'),
    ('head.mask_mlp.0.{leaf}', 'mask_head.fc1.{leaf}'),
    ('head.mask_mlp.2.{leaf}', 'mask_head.fc2.{leaf}'),
    ('head.mask_mlp.4.{leaf}', 'mask_head.fc3.{leaf}'),
    ('head.upscale.{i}.conv1.{leaf}', 'upscale_block.block.{i}.conv1.{leaf}'),
    ('head.upscale.{i}.conv2.{leaf}', 'upscale_block.block.{i}.conv2.{leaf}'),
    ('head.upscale.{i}.norm.{leaf}', 'upscale_block.block.{i}.layernorm2d.{leaf}'),
)
HF_DINOV2: tuple[Pair, ...] = (
    ('backbone.cls_token', 'embeddings.cls_token'),
    ('backbone.reg_token', 'embeddings.register_tokens'),
    ('backbone.pos_embed', 'embeddings.position_embeddings.weight'),
    (
        'backbone.patch_embed.proj.{leaf}',
        'embeddings.patch_embeddings.projection.{leaf}',
    ),
    ('backbone.norm.{leaf}', 'layernorm.{leaf}'),
)
HF_DINOV2_BLOCK: tuple[Pair, ...] = (
    ('norm1.{leaf}', 'norm1.{leaf}'),
    (
        'attn.qkv.{leaf}',
        (
            'attention.q_proj.{leaf}',
            'attention.k_proj.{leaf}',
            'attention.v_proj.{leaf}',
        ),
    ),
    ('attn.proj.{leaf}', 'attention.out_proj.{leaf}'),
    ('ls1.gamma', 'layer_scale1.lambda1'),
    ('norm2.{leaf}', 'norm2.{leaf}'),
    ('ls2.gamma', 'layer_scale2.lambda1'),
)
HF_GELU: tuple[Pair, ...] = (
    ('mlp.fc1.{leaf}', 'mlp.fc1.{leaf}'),
    ('mlp.fc2.{leaf}', 'mlp.fc2.{leaf}'),
)
# timm's SwiGLU has the gate and the value in one matrix, the gate first.
HF_SWIGLU: tuple[Pair, ...] = (
    ('mlp.fc1.{leaf}', ('mlp.gate_proj.{leaf}', 'mlp.up_proj.{leaf}')),
    ('mlp.fc2.{leaf}', 'mlp.down_proj.{leaf}'),
)
HF_SWIGLU_FUSED: tuple[Pair, ...] = (
    ('mlp.fc1.{leaf}', 'mlp.weights_in.{leaf}'),
    ('mlp.fc2.{leaf}', 'mlp.weights_out.{leaf}'),
)
DINOV3_EMBEDDINGS: tuple[Pair, ...] = (
    ('cls_token', 'cls_token'),
    ('reg_token', 'register_tokens'),
    ('patch_embed.proj.{leaf}', 'patch_embeddings.{leaf}'),
)
# The keys have no bias.
DINOV3_BLOCK: tuple[Pair, ...] = (
    ('norm1.{leaf}', 'norm1.{leaf}'),
    (
        'attn.qkv.weight',
        (
            'attention.q_proj.weight',
            'attention.k_proj.weight',
            'attention.v_proj.weight',
        ),
    ),
    ('attn.q_bias', 'attention.q_proj.bias'),
    ('attn.v_bias', 'attention.v_proj.bias'),
    ('attn.proj.{leaf}', 'attention.o_proj.{leaf}'),
    ('gamma_1', 'layer_scale1.lambda1'),
    ('norm2.{leaf}', 'norm2.{leaf}'),
    ('mlp.fc1.{leaf}', 'mlp.up_proj.{leaf}'),
    ('mlp.fc2.{leaf}', 'mlp.down_proj.{leaf}'),
    ('gamma_2', 'layer_scale2.lambda1'),
)
# What is in a file beside the network. Mask probabilities belong to the training that
# wrote it: in a model they would mask the start of the next one.
OFFICIAL_UNUSED: tuple[Pair, ...] = (
    ('attn_mask_probs', 'network.attn_mask_probs'),
    ('criterion.empty_weight', 'criterion.empty_weight'),
    ('pixel_mean', 'network.encoder.pixel_mean'),
    ('pixel_std', 'network.encoder.pixel_std'),
)
HF_UNUSED: tuple[Pair, ...] = (
    ('attn_mask_probs', 'attn_mask_probs'),
    ('criterion.empty_weight', 'criterion.empty_weight'),
    ('mask_token', 'embeddings.mask_token'),
)


def _hf_dinov2(name: str, mark: str, mlp: tuple[Pair, ...]) -> Layout:
    blocks = below('backbone.blocks.{i}.', 'layers.{i}.', HF_DINOV2_BLOCK + mlp)
    return Layout(
        name,
        ('query.weight', f'layers.{{i}}.mlp.{mark}.weight'),
        HF_HEAD + HF_DINOV2 + blocks,
        HF_UNUSED,
        ('backbone.pos_embed',),
    )


def _dinov3_vit(embeddings: str, block: str, norm: str) -> tuple[Pair, ...]:
    return (
        *below('backbone.', embeddings, DINOV3_EMBEDDINGS),
        *below('backbone.blocks.{i}.', block, DINOV3_BLOCK),
        ('backbone.norm.{leaf}', f'{norm}.{{leaf}}'),
    )


_NETWORK = 'network.encoder.backbone.'
OFFICIAL_DINOV2 = Layout(
    'official, DINOv2',
    (_NETWORK + 'blocks.{i}.attn.qkv.weight',),
    (*OFFICIAL_HEAD, ('backbone.{rest}', _NETWORK + '{rest}')),
    OFFICIAL_UNUSED,
)
OFFICIAL_DINOV3 = Layout(
    'official, DINOv3',
    (_NETWORK + 'blocks.{i}.attention.q_proj.weight',),
    OFFICIAL_HEAD
    + _dinov3_vit(
        _NETWORK + 'patch_embed.', _NETWORK + 'blocks.{i}.', _NETWORK + 'norm'
    ),
    OFFICIAL_UNUSED,
)
EOMT = _hf_dinov2('Eomt', 'fc1', HF_GELU)
EOMT_SWIGLU = _hf_dinov2('Eomt with SwiGLU', 'gate_proj', HF_SWIGLU)
# Read, never written: transformers 5 does not know these names.
EOMT_SWIGLU_FUSED = _hf_dinov2(
    'Eomt with SwiGLU, transformers 4', 'weights_in', HF_SWIGLU_FUSED
)
EOMT_DINOV3 = Layout(
    'EomtDinov3',
    ('query.weight', 'layers.{i}.mlp.up_proj.weight'),
    HF_HEAD + _dinov3_vit('embeddings.', 'layers.{i}.', 'layernorm'),
    HF_UNUSED,
)
DINOV3_VIT = Layout(
    'dinov3_vit',
    ('embeddings.register_tokens', 'layer.{i}.attention.q_proj.weight'),
    _dinov3_vit('embeddings.', 'layer.{i}.', 'norm'),
    (('mask_token', 'embeddings.mask_token'),),
)
# In this order: EomtDinov3's mark occurs in a SwiGLU too.
LAYOUTS = (
    OFFICIAL_DINOV2,
    OFFICIAL_DINOV3,
    EOMT,
    EOMT_SWIGLU,
    EOMT_SWIGLU_FUSED,
    EOMT_DINOV3,
)


def recognise(keys: list[str]) -> Layout:
    """Recognise the layout by the names of the tensors.

    Args:
        keys (list[str]): All names.

    Returns:
        Layout: One of `LAYOUTS`.

    Raises:
        UserError: If the layout is unknown; names the kind of file, if known.
    """
    for layout in LAYOUTS:
        if layout.marks_are_in(keys):
            return layout
    if 'backbone.queries' in keys:
        raise UserError(
            'this is a checkpoint of this package already; add --to-hf to convert it '
            'to the layout of Hugging Face'
        )
    if DINOV3_VIT.marks_are_in([key.removeprefix('model.') for key in keys]):
        raise UserError(
            'this is a pre-trained DINOv3 without the queries and the head of EoMT: '
            'pass it as --base of a delta file'
        )
    raise UserError(
        f'this is not an EoMT: {len(keys)} tensors such as {shorten(keys)}. Known are '
        f'{"; ".join(layout.name for layout in LAYOUTS)}'
    )
