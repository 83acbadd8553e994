"""Tiny models of every task and backbone, and configs on other data."""

from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from eomt_mm.models import MaskHead
from eomt_mm.models.build import build_backbone

ARCHS = {
    'plain': 'vit_tiny_patch16_224',
    'dinov2': 'vit_small_patch14_reg4_dinov2',
    'swiglu': 'vit_giant_patch14_reg4_dinov2',
    'dinov3': 'vit_small_patch16_dinov3_qkvb',
    'eva02': 'eva02_tiny_patch14_224',
}
CONFIG = """
default_scope = {scope!r}
model = dict(
    type={model!r},
    data_preprocessor=dict(
        type={before!r}, size=({size}, {size}), bgr_to_rgb=True,
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        type='eomt_mm.QueryViT', arch={arch!r}, img_size={size}, patch_size={patch},
        num_queries=8, num_blocks=2, pretrained=False, token_merging={merging!r},
        timm_args={timm_args!r}),
    {head}=dict(type={head_type!r}, {counts}),
    test_cfg=dict({test}))
test_dataloader = dict(dataset=dict(
    type={dataset!r}, ann_file={ann_file!r},
    metainfo=dict(classes=('cat', 'dog', 'sky', 'sea'), {things}
                  palette=[[200, 40, 40], [40, 200, 40], [40, 40, 200], [9, 9, 9]]),
    pipeline=[dict(type='LoadImageFromFile', imdecode_backend='pillow'),
              dict(type={resize!r}, size={size}), dict(type={pack!r})]))
"""
SEMANTIC = dict(
    scope='mmseg',
    model='eomt_mm.EoMTSegmentor',
    before='eomt_mm.EoMTSegDataPreProcessor',
    head='decode_head',
    head_type='eomt_mm.SemanticHead',
    counts='num_classes=4',
    test='',
    dataset='eomt_mm.SegDataset',
    ann_file='',
    things='',
    resize='eomt_mm.ResizeShortSide',
    pack='PackSegInputs',
)
PANOPTIC = dict(
    scope='mmdet',
    model='eomt_mm.EoMTDetector',
    before='eomt_mm.EoMTDetDataPreprocessor',
    head='panoptic_head',
    head_type='eomt_mm.PanopticHead',
    counts='num_things_classes=2, num_stuff_classes=2',
    # Random weights are sure of nothing.
    test='panoptic_on=True, object_mask_thr=0.3, iou_thr=0.4',
    dataset='eomt_mm.CocoPanopticDataset',
    ann_file='none.json',
    things="thing_classes=('cat', 'dog'), stuff_classes=('sky', 'sea'),",
    resize='eomt_mm.FitInside',
    pack='PackDetInputs',
)
INSTANCE = PANOPTIC | dict(
    counts='num_things_classes=4',
    test='panoptic_on=False, instance_on=True, max_per_image=20',
    dataset='eomt_mm.CocoInstanceDataset',
    things='',
)
# MMDetection's inferencer builds the dataset, and paints with tuples.
FOR_DETECTION = """
test_dataloader['dataset'].update(data_prefix=dict(img='', seg=''))
test_dataloader['dataset']['metainfo'].update(
    palette=[(200, 40, 40), (40, 200, 40), (40, 40, 200), (9, 9, 9)])
"""
SMALL = dict(size=64, patch=8, timm_args=dict(embed_dim=32, depth=4, num_heads=2))
TASKS = dict(semantic=SEMANTIC, panoptic=PANOPTIC, instance=INSTANCE)


def make_tiny(folder, task='semantic', arch='plain', merging=None, std=0.25, **changes):
    """Write a config and a checkpoint; return `cfg`, and both as paths."""
    config = folder / 'tiny.py'
    parts = TASKS[task] | SMALL | changes
    text = CONFIG.format(**parts, arch=ARCHS[arch], merging=merging)
    config.write_text(text)
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    # Seeds and scales whose results are no pictures of one class.
    torch.manual_seed(4 if task == 'semantic' else 3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    with torch.no_grad():
        model.backbone.queries *= 12
        model.mask_head.class_head.weight *= 4
        model.mask_head.mask_mlp[4].weight *= 6
    checkpoint = folder / 'tiny.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, checkpoint)
    return SimpleNamespace(cfg=cfg, config=config, checkpoint=checkpoint)


def tiny_backbone(**changes):
    """Images of 32 pixels, 4 x 4 patches, two of three blocks with queries."""
    options = dict(
        type='eomt_mm.QueryViT',
        arch='vit_tiny_patch16_224',
        img_size=32,
        patch_size=8,
        num_queries=6,
        num_blocks=2,
        pretrained=False,
        timm_args=dict(embed_dim=32, depth=3, num_heads=2),
    )
    return options | changes


def tiny_network(
    arch, std, img_size=64, num_queries=6, token_merging=None, **timm_args
):
    """A backbone and a head of five classes with random weights."""
    torch.manual_seed(0)
    backbone = build_backbone(
        arch=arch,
        img_size=img_size,
        num_queries=num_queries,
        num_blocks=2,
        pretrained=False,
        timm_args=dict(embed_dim=64, depth=4, num_heads=4) | timm_args,
        token_merging=token_merging,
    )
    head = MaskHead(64, 5, backbone.patch_size)
    # timm's LayerScale is next to 0 before training: the blocks would do nothing.
    for parameter in [*backbone.parameters(), *head.parameters()]:
        torch.nn.init.normal_(parameter, std=std)
    return backbone.eval(), head.eval()


def on_data(config, data_root):
    """A config whose paths all lie below another `data_root`."""
    cfg = Config.fromfile(config)
    text = cfg.pretty_text.replace(cfg.data_root, str(data_root))
    return Config.fromstring(text, '.py')


def suit_inferencers(found, task):
    """Give a tiny model what MM's inferencers ask for; returns it."""
    painter = 'SegLocalVisualizer' if task == 'semantic' else 'eomt_mm.DetVisualizer'
    with found.config.open('a') as file:
        file.write(f"visualizer = dict(type='{painter}')\n")
        if task != 'semantic':
            file.write(FOR_DETECTION)
    meta = found.cfg.test_dataloader.dataset.metainfo
    # As a training leaves it: inferencers read the classes there.
    meta = dict(classes=list(meta.classes), palette=list(meta.palette))
    content = torch.load(found.checkpoint)
    torch.save(dict(content, meta=dict(dataset_meta=meta)), found.checkpoint)
    return found
