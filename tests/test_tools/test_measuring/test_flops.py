"""Counting: against MMEngine's counter, and against the paper's table."""

import re

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import ModulatedDeformConv2dPack
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from torch import nn

from eomt_mm.errors import UserError
from measuring.networks import complexity_of, find_config
from measuring.operations import ShapesOnly, count_operations, parameters_without_values

# Rebuilt from the paper's description with Hugging Face's Mask2Former and counted with
# fvcore, fused attention included; the paper rounds them (and has 700 for step 1 of
# ViT-L, 40 less than a pixel decoder leaves).
SIZES = dict(s='small', b='base', l='large', g='giant')
GFLOPS = {
    'step0_vits_coco_panoptic_640': 164.6,
    'step1_vits_coco_panoptic_640': 143.2,
    'step2_vits_coco_panoptic_640': 88.8,
    'step3_vits_coco_panoptic_640': 84.9,
    'step4_vits_coco_panoptic_640': 88.8,
    'eomt_vits_coco_panoptic_640_1x': 68.0,
    'step0_vitb_coco_panoptic_640': 346.6,
    'step1_vitb_coco_panoptic_640': 290.9,
    'step2_vitb_coco_panoptic_640': 236.6,
    'step3_vitb_coco_panoptic_640': 228.5,
    'step4_vitb_coco_panoptic_640': 286.4,
    'eomt_vitb_coco_panoptic_640_1x': 215.8,
    'step0_vitl_coco_panoptic_640': 830.3,
    'step1_vitl_coco_panoptic_640': 739.7,
    'step2_vitl_coco_panoptic_640': 685.4,
    'step3_vitl_coco_panoptic_640': 673.1,
    'step4_vitl_coco_panoptic_640': 828.2,
    'eomt_vitl_coco_panoptic_640': 668.5,
    'step0_vitg_coco_panoptic_640': 2510.3,
    'step4_vitg_coco_panoptic_640': 2688.9,
    'eomt_vitg_coco_panoptic_640': 2261.3,
    'step0_vitl_ade20k': 497.8,
    'eomt_vitl_ade20k': 394.4,
    'step0_vitl_cityscapes': 2600.4,
    'eomt_vitl_cityscapes': 2175.3,
}


class Everything(nn.Module):
    """An operator of each kind that has a cost."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.group_norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.layer_norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 6)
        self.act = nn.GELU()

    def forward(self, images):
        x = self.group_norm(self.depthwise(self.norm(self.conv(images)).relu()))
        x = self.up(F.interpolate(x, scale_factor=2, mode='bilinear'))
        x = x + F.interpolate(x[:, :, ::2, ::2], scale_factor=2, mode='nearest')
        x = F.grid_sample(
            x, torch.zeros(1, 4, 5, 2, device=x.device), align_corners=False
        )
        tokens = self.act(self.linear(self.layer_norm(x.flatten(2).transpose(1, 2))))
        masks = torch.einsum('bqc,bpc->bqp', tokens, tokens)
        return F.adaptive_avg_pool2d(masks[:, None], 2)


def test_equals_mmengines_counter():
    model = Everything().eval().requires_grad_(False)
    images = torch.randn(1, 3, 16, 16)
    expected = FlopAnalyzer(model, images)
    expected.unsupported_ops_warnings(False).tracer_warnings('none')
    assert count_operations(lambda: model(images), model) == expected.total()


def test_shapes_are_enough():
    with parameters_without_values():
        model = Everything().eval().requires_grad_(False)
    assert all(p.is_meta for p in model.parameters())
    assert not any(b.is_meta for b in model.buffers())
    with ShapesOnly():
        images = torch.empty(1, 3, 16, 16, device='meta')
        shapes = count_operations(lambda: model(images), model)
    real, images = Everything().eval().requires_grad_(False), torch.randn(1, 3, 16, 16)
    assert shapes == count_operations(lambda: real(images), real)


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('masked', [False, True])
def test_fused_attention_is_two_products(device, masked):
    q = torch.empty(1, 2, 5, 4, device=device)
    k = torch.empty(1, 2, 7, 4, device=device)
    mask = torch.ones(5, 7, dtype=torch.bool, device=device) if masked else None
    count = count_operations(
        lambda: F.scaled_dot_product_attention(q, k, k, attn_mask=mask), nn.Identity()
    )
    assert count == 2 * (2 * 5 * 7 * 4)


def test_layers_of_attention_are_looked_into():
    """PyTorch runs them as one operator otherwise."""
    attn = nn.MultiheadAttention(8, 2, batch_first=True).eval().requires_grad_(False)
    x = torch.randn(1, 5, 8)
    projections, products = 4 * 5 * 8 * 8, 2 * 5 * 5 * 8
    assert count_operations(lambda: attn(x, x, x), attn) == projections + products


def test_what_decides_on_shapes_keeps_its_values():
    with ShapesOnly():
        x = torch.empty(2, 6, 3, device='meta')
        sizes = torch.tensor([[1, 2], [2, 2]]).to(x.device)
        parts = x.split([rows * cols for rows, cols in sizes], dim=1)
        assert [part.shape[1] for part in parts] == [2, 4]
        assert (x[0, :2, :2] / sizes).is_meta


def test_a_shared_parameter_stays_one():
    with parameters_without_values():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
    assert len(list(model.parameters())) == 3


@pytest.mark.parametrize('name', GFLOPS)
def test_ladder_costs_what_the_paper_says(root, name):
    step, size = re.match(r'(\w+?)_vit(\w)_', name).groups()
    family = 'eomt' if step == 'eomt' else 'ladder'
    path = root / f'configs/{family}/{name}.py'
    if not path.exists():  # a size without a published score is an option
        path = path.with_stem(name.replace(f'vit{size}', 'vitl'))
    cfg = Config.fromfile(path)
    cfg.model.backbone.arch = f'vit_{SIZES[size]}_patch14_reg4_dinov2'
    gflops = complexity_of(cfg).operations / 1e9
    assert gflops == pytest.approx(GFLOPS[name], rel=5e-3)
    assert gflops == pytest.approx(GFLOPS[name], abs=0.06)  # to all its digits


def test_any_mask2former_can_do_without_its_masks():
    """The stock config with this package's head, as the documentation has it."""
    name = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'
    cfg = Config.fromfile(find_config(name))
    stock = complexity_of(cfg)
    cfg.model.panoptic_head.update(type='eomt_mm.Mask2FormerHead')
    masked = complexity_of(cfg)
    cfg.model.panoptic_head.mask_probs = [0.0] * 9
    free = complexity_of(cfg)
    assert stock.parameters == masked.parameters == free.parameters
    assert masked.operations == pytest.approx(stock.operations, rel=1e-3)
    # Nine predictions less, of masks of 160 x 160 cells for each of 100 queries, but
    # with the scores that are not counted where there are masks.
    predictions = 9 * 100 * 256 * (160 * 160 + 3 * 256 + 134)
    scores = 3 * 100 * 256 * (80 * 80 + 40 * 40 + 20 * 20)
    assert masked.operations - free.operations == pytest.approx(
        predictions - scores, rel=0.02
    )


@pytest.mark.slow
def test_every_config_can_be_counted(root):
    """And thus runs: all sizes within a network fit together."""
    for path in sorted((root / 'configs').glob('[!_]*/*.py')):
        # Those with merged tokens have the networks of others, and compute in earnest.
        if path.stem in GFLOPS or path.stem.endswith('_algm'):
            continue
        cfg = Config.fromfile(path)
        result = complexity_of(cfg)
        assert result.operations > result.parameters, path
        assert result.size == tuple(cfg.crop_size), path


# As published by MMDetection and MMSegmentation, and for the whole network.
@pytest.mark.parametrize(
    ('name', 'millions', 'gflops'),
    [
        (
            'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
            44.0,
            None,
        ),
        ('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', 3.75, 8.4),
    ],
)
def test_stock_networks(name, millions, gflops):
    result = complexity_of(Config.fromfile(find_config(name)))
    assert result.parameters / 1e6 == pytest.approx(millions, rel=5e-3)
    if gflops:
        assert result.operations / 1e9 == pytest.approx(gflops, rel=0.02)


def test_networks_that_look_at_values_are_computed():
    """The proposals of a two-stage detector."""
    cfg = Config.fromfile(
        find_config('mmdet::mask_rcnn/mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco.py')
    )
    result = complexity_of(cfg, (32, 64))
    # The published 44.40 M of ResNet-50, less 23.51 M, plus 11.18 M; FPN takes fewer
    # channels.
    lateral = (2048 + 1024 + 512 + 256 - 512 - 256 - 128 - 64) * 256
    expected = 44_396_336 - 23_508_032 + 11_176_512 - lateral
    assert result.parameters == expected
    assert result.operations > 1e9


def test_deformable_convolutions_cost_as_much_as_others():
    """They are compiled functions of mmcv, which no counter sees."""
    module = ModulatedDeformConv2dPack(8, 16, 3, padding=1).eval().requires_grad_(False)
    x = torch.randn(1, 8, 6, 6)
    convolution, offsets = 36 * 16 * 8 * 9, 36 * 27 * 8 * 9
    assert count_operations(lambda: module(x), module) == convolution + offsets


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('mmfoo::x.py', 'mmfoo is not installed'),
        (
            'mmseg::setr/setr_vit-l_pub_8xb2-160k_ade20k-512x512.py',
            'did you mean mmseg::setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py',
        ),
    ],
)
def test_unknown_configs_of_frameworks(name, message):
    with pytest.raises(UserError, match=message):
        find_config(name)
