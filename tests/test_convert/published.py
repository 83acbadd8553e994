"""Names and shapes of the published checkpoints, written down from what is known of
the files, and not from this package's tables.
"""

from typing import NamedTuple

import torch

# Channels, blocks, blocks with queries, rows of the first and columns of the second
# matrix of the MLP.
SIZES = {
    'small': (384, 12, 3, 1536, 1536),
    'base': (768, 12, 3, 3072, 3072),
    'large': (1024, 24, 4, 4096, 4096),
    'giant': (1536, 40, 5, 8192, 4096),
}
COCO, COCO_THINGS, ADE, CITYSCAPES = 133, 80, 150, 19
COLOURS = {
    'network.encoder.pixel_mean': (0.485, 0.456, 0.406),
    'network.encoder.pixel_std': (0.229, 0.224, 0.225),
}


class Repo(NamedTuple):
    """A published checkpoint.

    `configs` are those that are to be found for it, without their folder and suffix;
    `parameters` what is known of their number.
    """

    name: str
    size: str
    image: int
    queries: int
    classes: int
    configs: tuple[str, ...]
    parameters: int | None = None


DINOV2 = (
    Repo(
        *('coco_panoptic_eomt_small_640_2x', 'small', 640, 200, COCO),
        ('eomt_vits_coco_panoptic_640_1x', 'eomt_vits_coco_panoptic_640_2x'),
        23_975_942,
    ),
    Repo(
        *('coco_panoptic_eomt_base_640_2x', 'base', 640, 200, COCO),
        ('eomt_vitb_coco_panoptic_640_1x', 'eomt_vitb_coco_panoptic_640_2x'),
        93_663_110,
    ),
    Repo(
        *('coco_panoptic_eomt_large_640', 'large', 640, 200, COCO),
        ('eomt_vitl_coco_panoptic_640',),
        316_695_686,
    ),
    Repo(
        *('coco_panoptic_eomt_giant_640', 'giant', 640, 200, COCO),
        ('eomt_vitg_coco_panoptic_640',),
        1_163_622_022,
    ),
    Repo(
        *('coco_panoptic_eomt_large_1280', 'large', 1280, 200, COCO),
        ('eomt_vitl_coco_panoptic_1280',),
        321_610_886,
    ),
    Repo(
        *('coco_panoptic_eomt_giant_1280', 'giant', 1280, 200, COCO),
        ('eomt_vitg_coco_panoptic_1280',),
        1_170_994_822,
    ),
    Repo(
        *('ade20k_panoptic_eomt_large_640', 'large', 640, 200, ADE),
        ('eomt_vitl_ade20k_panoptic_640',),
    ),
    Repo(
        *('ade20k_panoptic_eomt_giant_640', 'giant', 640, 200, ADE),
        ('eomt_vitg_ade20k_panoptic_640',),
    ),
    Repo(
        *('ade20k_panoptic_eomt_large_1280', 'large', 1280, 200, ADE),
        ('eomt_vitl_ade20k_panoptic_1280',),
    ),
    Repo(
        *('ade20k_panoptic_eomt_giant_1280', 'giant', 1280, 200, ADE),
        ('eomt_vitg_ade20k_panoptic_1280',),
    ),
    Repo(
        *('cityscapes_semantic_eomt_large_1024', 'large', 1024, 100, CITYSCAPES),
        ('eomt_vitl_cityscapes',),
        319_032_340,
    ),
    Repo(
        *('ade20k_semantic_eomt_large_512', 'large', 512, 100, ADE),
        ('eomt_vitl_ade20k',),
        316_020_887,
    ),
    Repo(
        *('coco_instance_eomt_large_640', 'large', 640, 200, COCO_THINGS),
        ('eomt_vitl_coco_instance_640',),
        316_641_361,
    ),
    Repo(
        *('coco_instance_eomt_large_1280', 'large', 1280, 200, COCO_THINGS),
        ('eomt_vitl_coco_instance_1280',),
    ),
)
DINOV3 = (
    Repo(
        *('coco_panoptic_eomt_small_640_dinov3', 'small', 640, 200, COCO),
        ('eomt_dinov3_vits_coco_panoptic_640_2x',),
        23_356_934,
    ),
    Repo(
        *('coco_panoptic_eomt_base_640_dinov3', 'base', 640, 200, COCO),
        ('eomt_dinov3_vitb_coco_panoptic_640_2x',),
        92_425_094,
    ),
    Repo(
        *('coco_panoptic_eomt_large_640_dinov3', 'large', 640, 200, COCO),
        ('eomt_dinov3_vitl_coco_panoptic_640',),
        315_032_710,
    ),
    Repo(
        *('coco_panoptic_eomt_large_1280_dinov3', 'large', 1280, 200, COCO),
        ('eomt_dinov3_vitl_coco_panoptic_1280',),
        315_032_710,
    ),
    Repo(
        *('ade20k_semantic_eomt_large_512_dinov3', 'large', 512, 100, ADE),
        ('eomt_dinov3_vitl_ade20k',),
    ),
    Repo(
        *('coco_instance_eomt_large_640_dinov3', 'large', 640, 200, COCO_THINGS),
        ('eomt_dinov3_vitl_coco_instance_640',),
    ),
    Repo(
        *('coco_instance_eomt_large_1280_dinov3', 'large', 1280, 200, COCO_THINGS),
        ('eomt_dinov3_vitl_coco_instance_1280',),
    ),
)


def dinov2_shapes(size, image, queries, classes):
    """Shapes of an official `.bin` file by name; `size` is a name or the numbers."""
    c, depth, blocks, up, down = SIZES.get(size, size)
    vit = 'network.encoder.backbone.'
    shapes = {
        f'{vit}cls_token': (1, 1, c),
        f'{vit}reg_token': (1, 4, c),
        f'{vit}pos_embed': (1, (image // 16) ** 2, c),
        f'{vit}patch_embed.proj.weight': (c, 3, 16, 16),
        f'{vit}patch_embed.proj.bias': (c,),
        f'{vit}norm.weight': (c,),
        f'{vit}norm.bias': (c,),
    }
    for i in range(depth):
        block = f'{vit}blocks.{i}.'
        for norm in ('norm1', 'norm2'):
            shapes[f'{block}{norm}.weight'] = shapes[f'{block}{norm}.bias'] = (c,)
        shapes[f'{block}attn.qkv.weight'] = (3 * c, c)
        shapes[f'{block}attn.qkv.bias'] = (3 * c,)
        shapes[f'{block}attn.proj.weight'] = (c, c)
        shapes[f'{block}attn.proj.bias'] = (c,)
        shapes[f'{block}ls1.gamma'] = shapes[f'{block}ls2.gamma'] = (c,)
        shapes[f'{block}mlp.fc1.weight'] = (up, c)
        shapes[f'{block}mlp.fc1.bias'] = (up,)
        shapes[f'{block}mlp.fc2.weight'] = (c, down)
        shapes[f'{block}mlp.fc2.bias'] = (c,)
    return shapes | head_shapes(c, blocks, queries, classes)


def dinov3_shapes(size, queries, classes):
    """Shapes of an official `.bin` file, either a delta or a whole network."""
    c, _, blocks, *_ = SIZES.get(size, size)
    vit = 'network.encoder.backbone.'
    shapes = {
        official_dinov3_name(name): shape
        for name, shape in dinov3_vit_shapes(size).items()
        if name != 'embeddings.mask_token'
    }
    assert all(name.startswith(vit) for name in shapes)
    return shapes | head_shapes(c, blocks, queries, classes)


def dinov3_vit_shapes(size):
    """Shapes of `model.safetensors` of the pre-trained DINOv3."""
    c, depth, _, up, down = SIZES.get(size, size)
    shapes = {
        'embeddings.cls_token': (1, 1, c),
        'embeddings.mask_token': (1, 1, c),
        'embeddings.register_tokens': (1, 4, c),
        'embeddings.patch_embeddings.weight': (c, 3, 16, 16),
        'embeddings.patch_embeddings.bias': (c,),
        'norm.weight': (c,),
        'norm.bias': (c,),
    }
    for i in range(depth):
        block = f'layer.{i}.'
        for norm in ('norm1', 'norm2'):
            shapes[f'{block}{norm}.weight'] = shapes[f'{block}{norm}.bias'] = (c,)
        for part in ('q', 'k', 'v', 'o'):
            shapes[f'{block}attention.{part}_proj.weight'] = (c, c)
            if part != 'k':
                shapes[f'{block}attention.{part}_proj.bias'] = (c,)
        shapes[f'{block}layer_scale1.lambda1'] = (c,)
        shapes[f'{block}layer_scale2.lambda1'] = (c,)
        shapes[f'{block}mlp.up_proj.weight'] = (up, c)
        shapes[f'{block}mlp.up_proj.bias'] = (up,)
        shapes[f'{block}mlp.down_proj.weight'] = (c, down)
        shapes[f'{block}mlp.down_proj.bias'] = (c,)
    return shapes


def official_dinov3_name(name):
    """The authors' name of a tensor of the pre-trained DINOv3."""
    for theirs, official in (
        ('embeddings.', 'patch_embed.'),
        ('layer.', 'blocks.'),
        ('norm.', 'norm.'),
    ):
        if name.startswith(theirs):
            return f'network.encoder.backbone.{official}{name[len(theirs) :]}'
    raise KeyError(name)


def head_shapes(c, blocks, queries, classes):
    shapes = {
        'network.attn_mask_probs': (blocks,),
        'network.encoder.pixel_mean': (1, 3, 1, 1),
        'network.encoder.pixel_std': (1, 3, 1, 1),
        'criterion.empty_weight': (classes + 1,),
        'network.q.weight': (queries, c),
        'network.class_head.weight': (classes + 1, c),
        'network.class_head.bias': (classes + 1,),
    }
    for i in (0, 2, 4):
        shapes[f'network.mask_head.{i}.weight'] = (c, c)
        shapes[f'network.mask_head.{i}.bias'] = (c,)
    for i in (0, 1):
        shapes[f'network.upscale.{i}.conv1.weight'] = (c, c, 2, 2)
        shapes[f'network.upscale.{i}.conv1.bias'] = (c,)
        shapes[f'network.upscale.{i}.conv2.weight'] = (c, 1, 3, 3)
        shapes[f'network.upscale.{i}.norm.weight'] = (c,)
        shapes[f'network.upscale.{i}.norm.bias'] = (c,)
    return shapes


def on_meta(shapes):
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


def random_tensors(shapes, std=0.1):
    """Weights of norms around 1, all others around 0, no mask left; ImageNet's colours.

    The last are (1, 3, 1, 1), from 0 to 1.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = torch.randn(shape, generator=generator) * std
        if name.endswith(('norm.weight', 'norm1.weight', 'norm2.weight')):
            tensors[name] += 1
        if name == 'network.attn_mask_probs':
            tensors[name] = torch.zeros(shape)
        if name in COLOURS:
            tensors[name] = torch.tensor(COLOURS[name]).reshape(shape)
    return tensors
