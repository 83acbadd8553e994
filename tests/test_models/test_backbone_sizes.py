"""Sizes of heads, necks and preprocessors follow from the backbone."""

import copy

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope

from eomt_mm.errors import UserError
from eomt_mm.models.backbone_sizes import write_sizes
from eomt_mm.models.network import head_of

# task: config, and what MMSegmentation and MMDetection call the model.
TASKS = {
    'mmseg': ('eomt/eomt_vitl_ade20k', 'EncoderDecoder'),
    'mmdet': ('eomt/eomt_vitl_coco_panoptic_640', 'MaskFormer'),
}
SMALL = dict(
    arch='vit_tiny_patch16_224',
    img_size=(48, 64),
    patch_size=8,
    pretrained=False,
    timm_args=dict(embed_dim=32, depth=4, num_heads=2),
)


@pytest.fixture(params=TASKS)
def scope(request):
    init_default_scope(request.param)
    return request.param


@pytest.fixture
def small(scope, root):
    """A model's config of the scope with a small backbone, and no other size."""
    cfg = Config.fromfile(root / f'configs/{TASKS[scope][0]}.py')
    cfg.model.backbone.update(SMALL)
    return cfg.model


@pytest.fixture
def pyramid(root):
    """Step (1) of the ladder, which has a neck."""
    init_default_scope('mmdet')
    name = 'step1_vitl_coco_panoptic_640'
    model = Config.fromfile(root / f'configs/ladder/{name}.py').model
    model.backbone.update(SMALL, img_size=64)
    return model


def name_of_head(model):
    return next(name for name in model if name in ('decode_head', 'panoptic_head'))


def test_a_config_states_each_size_once(small):
    model = MODELS.build(small)
    head = head_of(model)
    assert head.embed_dims == 32
    assert len(head.upscale) == 1  # patches of 8 pixels, masks of 4
    assert model.data_preprocessor.size == (48, 64)


def test_explicit_sizes_of_the_last_release_still_build(small):
    old = copy.deepcopy(small)
    old[name_of_head(old)].update(embed_dims=32, patch_size=8)
    old.data_preprocessor.size = [48, 64]
    torch.manual_seed(0)
    stated = MODELS.build(old).state_dict()
    torch.manual_seed(0)
    derived = MODELS.build(small).state_dict()
    assert list(stated) == list(derived)
    assert all(torch.equal(stated[name], derived[name]) for name in stated)


@pytest.mark.parametrize(('key', 'value'), [('embed_dims', 64), ('patch_size', 16)])
def test_a_contradiction_is_one_error(small, key, value):
    name = name_of_head(small)
    small[name][key] = value
    with pytest.raises(
        UserError, match=rf'model\.{name}\.{key} is {value}, but .* 32|8'
    ):
        MODELS.build(small)


def test_a_preprocessor_of_another_size_is_refused(small):
    small.data_preprocessor.size = (64, 64)
    with pytest.raises(UserError, match=r'size is \(64, 64\), but .* \(48, 64\)'):
        MODELS.build(small)


def test_channels_pass_through_the_neck(pyramid):
    model = MODELS.build(pyramid)
    maps = model.extract_feat(torch.zeros(1, 3, 64, 64))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (32, side, side) for side in (16, 8, 4, 2)
    ]
    assert model.panoptic_head.class_weight == [1.0] * 133 + [0.1]
    pyramid.panoptic_head.in_channels = [64] * 4
    with pytest.raises(UserError, match='in_channels is .*64.* makes it .*32'):
        MODELS.build(pyramid)


def test_a_foreign_neck_decides_by_itself(pyramid):
    pyramid.neck = dict(type='FPN', in_channels=[32], out_channels=16, num_outs=4)
    pyramid.panoptic_head.in_channels = [16] * 4
    model = MODELS.build(pyramid)
    assert model.panoptic_head.pixel_decoder.mask_feature.in_channels == 256
    del pyramid.panoptic_head['in_channels']
    with pytest.raises(TypeError, match='in_channels'):
        MODELS.build(pyramid)


def test_stock_models_need_the_sizes_stated(small, scope):
    """They build the head without a look at the backbone."""
    small.type = TASKS[scope][1]
    if scope == 'mmseg':
        small.test_cfg = dict(mode='whole')
    else:
        head = small.panoptic_head
        small.panoptic_fusion_head = ConfigDict(
            type='eomt_mm.FusionHead',
            num_things_classes=head.num_things_classes,
            num_stuff_classes=head.num_stuff_classes,
        )
    with pytest.raises(UserError, match='embed_dims of the head is missing'):
        MODELS.build(small)
    write_sizes(small)
    model = MODELS.build(small)
    assert head_of(model).embed_dims == 32
    assert tuple(model.data_preprocessor.size) == (48, 64)


def test_a_preprocessor_without_a_size_says_so():
    init_default_scope('mmdet')
    preprocessor = MODELS.build(dict(type='eomt_mm.EoMTDetDataPreprocessor'))
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match='data_preprocessor.size is missing'):
        preprocessor(dict(inputs=[image], data_samples=None))
