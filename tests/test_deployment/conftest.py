"""Tiny models of every task and backbone, exported once; photographs of odd sizes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image

from measuring.inference import load_model, photo_info, photo_pipeline

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
SMALL = dict(size=64, patch=8, timm_args=dict(embed_dim=32, depth=4, num_heads=2))
TASKS = dict(semantic=SEMANTIC, panoptic=PANOPTIC, instance=INSTANCE)


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """`tiny('panoptic', arch='eva02')` has a `config` and a `checkpoint`, as paths."""

    def make(task='semantic', arch='plain', merging=None, std=0.25, **changes):
        folder = tmp_path_factory.mktemp(f'{task}_{arch}')
        config = folder / 'tiny.py'
        parts = TASKS[task] | SMALL | changes
        text = CONFIG.format(**parts, arch=ARCHS[arch], merging=merging)
        config.write_text(text)
        cfg = Config.fromfile(config)
        model = load_model(cfg, None, torch.device('cpu'))
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

    return make


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """A wide photo, a high one, a small one: smooth shapes with noise."""
    folder = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    paths = []
    for number, (height, width) in enumerate([(70, 150), (131, 90), (24, 31)]):
        y, x = np.mgrid[:height, :width]
        waves = [np.sin(x / (7 + i)) * np.cos(y / (11 - i)) for i in range(3)]
        pixels = 128 + 90 * np.stack(waves, -1) + rng.normal(0, 15, (height, width, 3))
        path = folder / f'{number}.png'
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope='session')
def export(run_tool, photos):
    """`export(tiny(), path, *options)` runs the tool; returns the differences."""

    def run(model, out, *options):
        return run_tool(
            'deployment/export',
            model.config,
            model.checkpoint,
            *('--out', out, '--photo', photos[0], *options),
        )

    return run


@pytest.fixture(scope='session')
def exported(tiny, export, tmp_path_factory):
    """`exported('panoptic')` is a tiny model with `onnx`, the path of its file."""
    made = {}

    def get(task):
        if task not in made:
            made[task] = tiny(task)
            made[task].onnx = tmp_path_factory.mktemp('onnx') / f'{task}.onnx'
            export(made[task], made[task].onnx)
        return made[task]

    return get


@pytest.fixture(scope='session')
def predict():
    """`predict(cfg, checkpoint, photo)` is what `tools/test.py` makes of a photo."""

    def run(cfg, checkpoint, photo):
        model = load_model(cfg, str(checkpoint), torch.device('cpu'))
        item = photo_pipeline(cfg)(photo_info(str(photo)))
        with torch.no_grad():
            return model.test_step(pseudo_collate([item]))[0]

    return run
