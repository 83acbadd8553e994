"""Every config loads, builds and says what its header says."""

import functools
import re
from pathlib import Path

import pytest
import timm
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, init_default_scope

from eomt_mm.models.network import head_of

ROOT = Path(__file__).parents[1]

# Of ViT-g: 2 x 2 and depthwise 3 x 3 convolution with norm; all but EoMT's head, which
# has queries, classes, three layers and two of those blocks.
SCALE = 4 * 1536**2 + 12 * 1536
GIANT = 1_163_622_022 - 200 * 1536 - 134 * 1537 - 3 * 1536 * 1537 - 2 * SCALE
# Four projections, three of which have a bias, two norms, a SwiGLU of int(1024 * 8 / 3)
# channels with a norm in between.
EVA02_BLOCK = (
    (4 * 1024 + 3 + 2 * 2) * 1024 + 2 * 2730 * 1025 + 2 * 2730 + (2730 + 1) * 1024
)


def doubled(width):
    """What patches of 32 pixels add to those of 16: weights, a block of the head."""
    return 3 * (32**2 - 16**2) * width + 4 * width**2 + 12 * width


# EUPE's ViT-T: patches, CLS and registers, twelve blocks whose keys have no bias, and
# norm; then queries and head.
TINY = (
    (3 * 16**2 + 1) * 192
    + 5 * 192
    + 12 * (12 * 192 + 14) * 192
    + 2 * 192
    + 100 * 192
    + 151 * 193
    + 3 * 192 * 193
    + 2 * (4 * 192**2 + 12 * 192)
)
# DINOv3's ViT-S+ is its ViT-S with a SwiGLU of as many channels.
SPLUS = 23_356_934 + 12 * (384 * 1536 + 1536)
# Counted with the reference network, or by hand from its parts.
PARAMETERS = {
    'eomt_vitl_ade20k': 316_020_887,
    'eomt_vitl_cityscapes': 319_032_340,
    'eomt_vitl_ade20k_algm': 316_020_887,
    'eomt_vitl_cityscapes_algm': 319_032_340,
    'eomt_vitl_bravo': 319_032_340,
    'eomt_vitl_coco_panoptic_640_algm': 316_695_686,
    'eomt_vits_coco_panoptic_640_1x': 23_975_942,
    'eomt_vits_coco_panoptic_640_2x': 23_975_942,
    'eomt_vitb_coco_panoptic_640_1x': 93_663_110,
    'eomt_vitb_coco_panoptic_640_2x': 93_663_110,
    'eomt_vitl_coco_panoptic_640': 316_695_686,
    'eomt_vitg_coco_panoptic_640': 1_163_622_022,
    'eomt_vitl_coco_panoptic_1280': 321_610_886,
    'eomt_vitg_coco_panoptic_1280': 1_170_994_822,
    'eomt_vitl_coco_instance_640': 316_641_361,
    # 53 classes less: 53 rows of 1024 weights and a bias.
    'eomt_vitl_coco_instance_1280': 321_610_886 - 53 * 1025,
    # 17 classes more.
    'eomt_vitl_ade20k_panoptic_640': 316_695_686 + 17 * 1025,
    'eomt_vitl_ade20k_panoptic_1280': 321_610_886 + 17 * 1025,
    'eomt_vitg_ade20k_panoptic_640': 1_163_622_022 + 17 * 1537,
    'eomt_vitg_ade20k_panoptic_1280': 1_170_994_822 + 17 * 1537,
    # Mask2Former's of Hugging Face on the same ViT, with an adapter or a pyramid.
    'step0_vitl_coco_panoptic_640': 348_674_054,
    'step0_vitl_coco_panoptic_640_annealed': 348_674_054,
    'step0_vitl_coco_panoptic_640_never': 348_674_054,
    'step1_vitl_coco_panoptic_640': 342_263_622,
    'step2_vitl_coco_panoptic_640': 337_211_782,
    'step3_vitl_coco_panoptic_640': 328_273_286,
    'step4_vitl_coco_panoptic_640': 316_695_686,
    'step5_vitl_coco_panoptic_640_never': 316_695_686,
    # The class head of Mask2Former has 256 weights and a bias for each class.
    'step0_vitl_coco_instance_640': 348_674_054 - 53 * 257,
    'step0_vitl_ade20k_panoptic_640': 348_674_054 + 17 * 257,
    # DINOv2's four registers less, and like those without position codes.
    'eomt_deit3_vitl_in21k_coco_panoptic_640': 316_695_686 - 4 * 1024,
    'eomt_deit3_vitl_in1k_coco_panoptic_640': 316_695_686 - 4 * 1024,
    'eomt_eva02_vitl_coco_panoptic_640': 24 * EVA02_BLOCK
    + (3 * 16 * 16 + 1) * 1024  # patches
    + (1 + 1601 + 2 + 200) * 1024  # CLS, position codes, norm, queries
    + 134 * 1025
    + 3 * 1024 * 1025
    + 2 * 1024 * (4 * 1024 + 1 + 9 + 2),
    'eomt_dinov3_vits_coco_panoptic_640_2x': 23_356_934,
    'eomt_dinov3_vitb_coco_panoptic_640_2x': 92_425_094,
    'eomt_dinov3_vitl_coco_panoptic_640': 315_032_710,
    # Rotary codes are no parameters.
    'eomt_dinov3_vitl_coco_panoptic_1280': 315_032_710,
    'eomt_dinov3_vitl_coco_instance_640': 315_032_710 - 53 * 1025,
    'eomt_dinov3_vitl_coco_instance_1280': 315_032_710 - 53 * 1025,
    # 17 classes more, 100 queries less.
    'eomt_dinov3_vitl_ade20k': 315_032_710 + 17 * 1025 - 100 * 1024,
    'eomt_dinov3_vitl_ade20k_1024': 315_032_710 + 17 * 1025 - 100 * 1024,
    'eomt_dinov3_vitl_ade20k_patch32': 314_947_735 + doubled(1024),
    'eomt_dinov3_vitl_coco_panoptic_640_patch32': 315_032_710 + doubled(1024),
    'eomt_dinov3_vitsplus_coco_panoptic_640_2x': SPLUS,
    'eomt_dinov3_vitsplus_ade20k': SPLUS + 17 * 385 - 100 * 384,
    'eomt_dinov3_vitt_ade20k': TINY,
    # 38 classes more.
    'eomt_dinov3_vitl_coco_stuff': 315_032_710 + 38 * 1025,
    'eomt_dinov3_vitb_coco_stuff': 92_425_094 + 38 * 769,
    'eomt_dinov3_vits_coco_stuff': 23_356_934 + 38 * 385,
    'eomt_dinov3_vitl_coco_stuff_patch32': 315_071_660 + doubled(1024),
    'eomt_dinov3_vitb_coco_stuff_patch32': 92_454_316 + doubled(768),
    'eomt_dinov3_vits_coco_stuff_patch32': 23_371_564 + doubled(384),
    'eomt_vitl_voc12': 316_020_887 - 129 * 1025,
    # Of 64 x 128 patches instead of 40 x 40.
    'eomt_vitl_cityscapes_panoptic': 316_695_686 - 114 * 1025 + 6592 * 1024,
    'eomt_vitl_cityscapes_instance': 316_695_686 - 125 * 1025 + 6592 * 1024,
}
# Counted on the same, to two digits.
MILLIONS = {
    'step0_vits_coco_panoptic_640': 46.56,
    'step4_vits_coco_panoptic_640': 23.98,
    'step0_vitb_coco_panoptic_640': 120.96,
    'step4_vitb_coco_panoptic_640': 93.66,
    'step0_vitg_coco_panoptic_640': 1208.65,
    'step4_vitg_coco_panoptic_640': 1163.62,
    'step0_vitl_ade20k': 348.04,
    'step0_vitl_cityscapes': 351.15,
    'step0_vitl_bravo': 351.15,
}
# Steps (1) to (3) on another ViT: an option, as all widths follow from the backbone.
# Those of ViT-g by hand: ViT, blocks of the pyramid, and what the head has more than
# that of ViT-L.
OTHER_SIZES = {
    ('step1', 'small'): 44_583_238,
    ('step2', 'small'): 39_531_398,
    ('step3', 'small'): 38_144_902,
    ('step1', 'base'): 116_755_270,
    ('step2', 'base'): 111_703_430,
    ('step3', 'base'): 106_572_166,
    ('step1', 'giant'): GIANT + 4 * SCALE + 20_645_702 + 4 * 512 * 256,
    ('step2', 'giant'): GIANT + 4 * SCALE + 15_593_862 + 4 * 512 * 256,
    ('step3', 'giant'): GIANT + 2 * SCALE + 15_068_550 + 2 * 512 * 256,
}
# A family of configs has a folder and a metafile.
FAMILIES = pytest.mark.parametrize('family', ['eomt', 'ladder'])
# Step (5) is EoMT itself.
STEPS = [
    *(ROOT / f'configs/ladder/step{i}_vitl_coco_panoptic_640.py' for i in range(5)),
    ROOT / 'configs/eomt/eomt_vitl_coco_panoptic_640.py',
]
RESIZE = {'mmseg': 'eomt_mm.ResizeShortSide', 'mmdet': 'eomt_mm.FitInside'}


def leaves():
    return sorted((ROOT / 'configs').glob('[!_]*/*.py'))


@pytest.fixture(params=leaves(), ids=lambda path: path.stem)
def config(request):
    return request.param


@functools.cache
def built(path):
    """The config and its model, without values; read only."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        return cfg, MODELS.build(cfg.model)


@FAMILIES
def test_metafile_agrees_with_the_configs(family):
    path = ROOT / f'configs/{family}/metafile.yml'
    models = {
        model['Name']: model for model in yaml.safe_load(path.read_text())['Models']
    }
    assert models.keys() == {p.stem for p in leaves() if p.parent.name == family}
    for name, model in models.items():
        path = ROOT / model['Config']
        cfg, meta = Config.fromfile(path), model['Metadata']
        assert cfg.train_cfg.max_iters == meta['Iterations'], name
        assert tuple(cfg.crop_size) == tuple(meta['Crop Size']), name
        if name in MILLIONS:
            assert meta['Parameters'] / 1e6 == pytest.approx(MILLIONS[name], abs=0.01)
        else:
            assert meta.get('Parameters', 0) == PARAMETERS.get(name, 0), name
        for result in model.get('Results', []):
            (score,) = result['Metrics'].values()
            assert f' {score} (quoted' in path.read_text(), name


def test_every_count_belongs_to_a_config():
    assert len(leaves()) >= 23
    assert PARAMETERS.keys() | MILLIONS.keys() <= {path.stem for path in leaves()}


@pytest.mark.parametrize(('step', 'size'), OTHER_SIZES)
def test_one_option_changes_the_size_of_a_step(step, size):
    cfg = Config.fromfile(ROOT / f'configs/ladder/{step}_vitl_coco_panoptic_640.py')
    arch = f'vit_{size}_patch14_reg4_dinov2'
    cfg.merge_from_dict({'model.backbone.arch': arch})
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    count = sum(p.numel() for p in model.parameters())
    assert count == OTHER_SIZES[step, size]
    page = (ROOT / 'configs/ladder/README.md').read_text()
    assert re.search(rf'\| \({step[-1]}\) [^|]+\| `{arch}` \| {count:,} \|', page)


def test_config_builds(config):
    cfg, model = built(config)
    init_default_scope(cfg.default_scope)
    count = sum(p.numel() for p in model.parameters())
    assert count == PARAMETERS.get(config.stem, count)
    assert count / 1e6 == pytest.approx(
        MILLIONS.get(config.stem, count / 1e6), abs=0.01
    )
    stated = re.search(r'([\d,.]+)( M)? parameters', config.read_text())
    if stated:
        exact = int(stated[1].replace(',', '')) if not stated[2] else None
        assert exact in (None, count)
        assert not stated[2] or round(count / 1e6, 2) == float(stated[1])

    size = model.backbone.img_size
    assert tuple(model.data_preprocessor.size) == size == tuple(cfg.crop_size)
    # What the backbone decides stands there alone.
    head, neck = head_of(cfg.model), cfg.model.get('neck') or {}
    assert not {'embed_dims', 'patch_size', 'in_channels'} & {*head, *neck}
    assert 'size' not in cfg.model.data_preprocessor
    train, val, test = (
        cfg[f'{split}_dataloader'].dataset.pipeline
        for split in ('train', 'val', 'test')
    )
    # A config may take a trained model to another data set.
    dataset, own = (cfg[f'{s}_dataloader'].dataset.type for s in ('test', 'val'))
    assert val == test or dataset != own
    (resize,) = (t for t in test if t.type == RESIZE[cfg.default_scope])
    # Tiles are for images that are larger than the input.
    tiled = cfg.model.test_cfg.get('tiles') is not None
    assert resize.size in (size[0], size) or tiled
    inner = [t for step in train for t in (step, *step.get('transforms', []))]
    assert all(t.size == size for t in inner if 'size' in t)
    for transform in (*train, *test):
        TRANSFORMS.build(transform)


def test_classes_of_head_and_dataset_agree(config):
    cfg, model = built(config)
    head = head_of(model)
    dataset = cfg.test_dataloader.dataset
    meta = {**DATASETS.get(dataset.type).METAINFO, **(dataset.get('metainfo') or {})}
    if cfg.default_scope == 'mmseg' or cfg.model.test_cfg.panoptic_on:
        assert head.num_classes == len(meta['classes'])
    if cfg.default_scope == 'mmdet':
        assert head.num_things_classes == len(
            meta.get('thing_classes', meta['classes'])
        )


def test_the_head_is_one_dict_for_all_tasks():
    """But for type and numbers of classes."""
    semantic, panoptic, instance = (
        Config.fromfile(ROOT / f'configs/eomt/eomt_vitl_{name}.py').model
        for name in ('ade20k', 'coco_panoptic_640', 'coco_instance_640')
    )
    own = ('type', 'num_classes', 'num_things_classes', 'num_stuff_classes')

    def shared(head):
        return {key: value for key, value in head.items() if key not in own}

    assert shared(semantic.decode_head) == shared(panoptic.panoptic_head)
    assert shared(panoptic.panoptic_head) == shared(instance.panoptic_head)
    varies = ('img_size', 'num_queries')
    one, other = (
        {k: v for k, v in model.backbone.items() if k not in varies}
        for model in (semantic, panoptic)
    )
    assert one == other


def test_token_merging_is_all_that_an_algm_config_adds():
    """So that it takes the checkpoints of the config without it."""
    names = [path for path in leaves() if path.stem.endswith('_algm')]
    assert len(names) == 6
    for path in names:
        merged = Config.fromfile(path)
        plain = Config.fromfile(path.with_stem(path.stem.removesuffix('_algm')))
        assert merged.model.backbone.pop('token_merging').type == 'eomt_mm.ALGM'
        assert merged.to_dict() == plain.to_dict(), path.stem


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_tiles_are_all_that_a_tiled_config_adds(task):
    """Besides larger scenes."""
    folder = ROOT / 'configs/demo'
    tiled = Config.fromfile(folder / f'eomt_scenes_{task}_tiles.py')
    plain = Config.fromfile(folder / f'eomt_scenes_{task}.py')
    assert tiled.model.test_cfg.pop('tiles') == dict(overlap=0.25)
    assert tiled.model == plain.model
    large, small = tiled.test_dataloader.dataset, plain.test_dataloader.dataset
    assert large.pipeline.pop(2).size == tuple(
        4 * s for s in small.pipeline.pop(2).size
    )
    assert large.pipeline == small.pipeline
    assert tiled.test_evaluator.ann_file.startswith(large.data_root)


def test_ade20k_panoptic_starts_from_coco():
    paths = [path for path in leaves() if 'ade20k_panoptic' in path.stem]
    assert len(paths) == 5
    for path in paths:
        *others, fine_tuning = Config.fromfile(path).custom_hooks
        assert fine_tuning == dict(type='eomt_mm.FineTuningHook', required=True)
        usual = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py').custom_hooks
        if 'step0' in path.stem:  # whose masks stay on
            usual = usual[1:]
        assert [*others, dict(type='eomt_mm.FineTuningHook')] == usual
        assert 'load_from=COCO_CHECKPOINT' in path.read_text()


def test_steps_of_the_ladder_share_the_recipe():
    steps = [Config.fromfile(path) for path in STEPS]
    keys = ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader')
    for step in steps:
        assert all(step[key] == steps[5][key] for key in keys)
        assert step.model.test_cfg == steps[5].model.test_cfg
        hooks = [hook.type for hook in step.custom_hooks]
        assert ('eomt_mm.MaskAnnealingHook' in hooks) is (step is steps[5])


def test_masks_are_all_that_the_last_step_removes():
    masked, plain = (Config.fromfile(path) for path in STEPS[4:])
    assert masked.model.backbone.pop('mask_probs') == [1.0] * 4
    assert masked.model == plain.model


def test_header_says_how_to_launch(config):
    text = config.read_text()
    assert text.startswith('#')
    tools = r'tools/(train\.py|dist_train\.sh|test\.py|analysis_tools/\w+\.py)'
    assert re.search(
        rf'{tools}( \\\n# )?\s+configs/{config.parent.name}/{config.name}', text
    )


def test_images_are_normalised_as_in_pre_training(config):
    model = Config.fromfile(config).model
    weights = timm.get_pretrained_cfg(model.backbone.arch)
    if model.backbone.pretrained:
        for ours, theirs in (('mean', weights.mean), ('std', weights.std)):
            expected = [255 * value for value in theirs]
            assert model.data_preprocessor[ours] == pytest.approx(expected), ours
