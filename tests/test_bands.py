"""Any number of bands: the config's line, the patch embedding, training and testing."""

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from PIL import Image

from eomt_mm.bands import set_bands
from eomt_mm.crop_size import set_crop_size
from eomt_mm.engine.fine_tuning import fit_weights
from eomt_mm.errors import UserError
from eomt_mm.models.plain_vit import PlainViT
from eomt_mm.models.pretrained import channel_rule, fit_channels
from eomt_mm.registry import has_mmdet

FOUR = dict(mean=[400.0, 380.0, 300.0, 2000.0], std=[200.0, 180.0, 150.0, 800.0])
TINY = {
    'model.backbone.timm_args': dict(embed_dim=32, depth=3, num_heads=4),
    'model.backbone.pretrained': False,
    'train_dataloader.batch_size': 2,
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 2,
    'default_hooks.checkpoint.interval': 2,
    'param_scheduler.warmup': (1, 1),
}


# The patch embedding


@pytest.fixture
def weights(tmp_path):
    """A file of weights for RGB, and the ViT they are of."""
    torch.manual_seed(0)
    options = dict(depth=1, embed_dim=32, num_heads=2)
    vit = timm.create_model('vit_tiny_patch16_224', img_size=32, **options)
    path = tmp_path / 'vit.pth'
    torch.save(vit.state_dict(), path)
    return path, vit.patch_embed.proj.weight.detach()


def plain(path, channels, patch=16):
    vit = PlainViT(
        'vit_tiny_patch16_224',
        img_size=2 * patch,
        patch_size=patch,
        pretrained=str(path),
        timm_args=dict(depth=1, embed_dim=32, num_heads=2),
        in_channels=channels,
    )
    vit.init_weights()
    return vit.eval()


@pytest.mark.parametrize('channels', [1, 2, 4, 13])
def test_the_rule(weights, channels):
    path, rgb = weights
    found = plain(path, channels).patch_embed.proj.weight
    if channels == 1:
        expected = rgb.sum(1, keepdim=True)
    else:
        order = [i % 3 for i in range(channels)]
        expected = rgb[:, order] * 3 / channels
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('channels', [1, 6, 9])
@pytest.mark.parametrize('patch', [8, 16])
def test_grey_is_embedded_as_before(weights, channels, patch):
    """Whether or not the patch embedding is resized, too."""
    torch.manual_seed(1)
    grey = torch.randn(1, 1, 2 * patch, 2 * patch)
    outputs = [
        plain(weights[0], n, patch)(grey.expand(-1, n, -1, -1))[0]
        for n in (3, channels)
    ]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'arch', ['vit_small_patch16_dinov3_qkvb', 'eva02_tiny_patch14_224']
)
def test_the_rule_holds_for_rotary_vits(tmp_path, arch):
    small = dict(depth=1, embed_dim=32, num_heads=2, img_size=32)
    torch.manual_seed(0)
    weights = timm.create_model(arch, patch_size=16, **small).state_dict()
    torch.save(weights, tmp_path / 'vit.pth')
    del small['img_size']
    vit = PlainViT(
        arch, 32, pretrained=str(tmp_path / 'vit.pth'), timm_args=small, in_channels=4
    )
    vit.init_weights()
    rgb = weights['patch_embed.proj.weight']
    found = vit.patch_embed.proj.weight
    torch.testing.assert_close(found, fit_channels(rgb, 4))


def test_weights_for_other_channels_fit_no_others(tmp_path):
    small = dict(depth=1, embed_dim=32, num_heads=2, img_size=32, in_chans=4)
    path = tmp_path / 'four.pth'
    vit = timm.create_model('vit_tiny_patch16_224', **small)
    torch.save(vit.state_dict(), path)
    found = plain(path, 4).patch_embed.proj.weight
    assert torch.equal(found, vit.patch_embed.proj.weight)
    for channels in (3, 2):
        message = f'of a ViT for 4 channels, and .*in_channels is {channels}: only'
        with pytest.raises(UserError, match=message):
            plain(path, channels)


def test_the_rule_is_logged(weights, monkeypatch):
    lines = []
    name = 'eomt_mm.models.plain_vit.print_log'
    monkeypatch.setattr(name, lambda text, **_: lines.append(text))
    plain(weights[0], 4)
    assert lines == [f'patch embedding: {channel_rule(4)}']
    assert 'repeated over 4 channels and scaled by 3 / 4' in lines[0]
    plain(weights[0], 3)
    assert len(lines) == 1


def test_no_channels_is_one_line():
    with pytest.raises(UserError, match='in_channels is 0, expected 1 or more'):
        PlainViT('vit_tiny_patch16_224', img_size=32, in_channels=0)


# The config


def config(root, name='configs/demo/eomt_scenes_semantic.py', **options):
    cfg = Config.fromfile(root / name)
    content = cfg._cfg_dict
    set_bands(content, **FOUR | options)
    return cfg


def steps_of(node):
    if isinstance(node, dict):
        if 'type' in node:
            yield node['type']
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from steps_of(child)


@pytest.mark.parametrize(
    'name',
    [
        'eomt_vitl_ade20k',
        'eomt_vitl_ade20k_panoptic_640',
        'eomt_vitl_coco_instance_640',
    ],
)
def test_one_line_reaches_the_whole_config(root, tmp_path, name):
    if 'panoptic' in name or 'instance' in name:
        pytest.importorskip('mmdet')
    path = tmp_path / 'own.py'
    path.write_text(
        f'_base_ = {str(root / "configs/eomt" / f"{name}.py")!r}\n'
        'from eomt_mm.bands import set_bands\n\n'
        'set_bands(_base_, mean=[1, 2, 3, 4], std=[5, 6, 7, 8], bands=[3, 2, 1, 0],\n'
        '          picture=(2, 1, 0))\n'
    )
    cfg = Config.fromfile(path)
    loader = dict(
        type='eomt_mm.LoadMultiBandImage', bands=[3, 2, 1, 0], picture=[2, 1, 0]
    )
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.pipeline[0] == loader
    types = set(steps_of(cfg.to_dict()))
    assert not {'LoadImageFromFile', 'eomt_mm.ColorJitter'} & types
    assert 'eomt_mm.RetryUntilLabelled' in types
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.backbone.in_channels == 4
    assert model.backbone.patch_embed.proj.in_channels == 4
    assert model.data_preprocessor.mean.shape == (4, 1, 1)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(std=[1.0]), 'mean has 4, std has 1 values; give a mean and a deviation'),
        (dict(mean=420), 'mean is 420, expected one number for each band'),
        (dict(std=['a']), r"std is \['a'\], expected one number for each band"),
        (dict(bands=0), 'bands=0; give the numbers of bands, from 0'),
        (dict(picture=('red',)), r"picture=\('red',\); give the numbers of bands"),
        (dict(bands=[0, 1]), 'mean has 4, std has 4, bands has 2 values'),
        (dict(mean=[], std=[]), 'mean has 0, std has 0 values'),
    ],
)
def test_other_counts_are_one_line(root, options, message):
    with pytest.raises(UserError, match=message):
        config(root, **options)


def test_a_second_call_replaces_the_first(root):
    cfg = config(root)
    set_bands(cfg._cfg_dict, mean=[1.0, 2.0], std=[3.0, 4.0], bands=[0, 2])
    assert cfg.model.backbone.in_channels == 2
    loader = cfg.train_dataloader.dataset.pipeline[0]
    assert loader == dict(type='eomt_mm.LoadMultiBandImage', bands=[0, 2])


def test_a_loader_with_a_prefix_is_replaced():
    steps = [dict(type='mmseg.LoadImageFromFile', backend_args=dict(backend='local'))]
    set_bands(dict(pipeline=steps), **FOUR)
    kept = dict(backend_args=dict(backend='local'))
    assert steps == [dict(kept, type='eomt_mm.LoadMultiBandImage')]


def test_the_adapter_takes_no_other_bands(root):
    with pytest.raises(UserError, match='ViT-Adapter .* takes red, green and blue alo'):
        config(root, 'configs/ladder/step0_vitl_ade20k.py')


def test_a_config_that_loads_nothing_is_one_line():
    with pytest.raises(UserError, match='no pipeline of the config has a LoadImageFr'):
        set_bands(dict(pipeline=[dict(type='RandomFlip')]), **FOUR)


@pytest.fixture(params=['semantic', 'panoptic'])
def demo(request, root):
    """The config of a demo with four bands, its scope being the current one."""
    if request.param == 'panoptic' and not has_mmdet():
        pytest.skip('needs MMDetection')
    cfg = config(root, f'configs/demo/eomt_scenes_{request.param}.py')
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize(
    ('part', 'value', 'message'),
    [
        ('backbone.in_channels', 5, 'mean has 4 values, but .*in_channels is 5: call'),
        ('data_preprocessor.std', [1.0, 1.0], 'std has 2 values, but .* is 4'),
        ('data_preprocessor.bgr_to_rgb', True, 'turns BGR to RGB, .* 4 channels'),
        ('data_preprocessor.std', [1.0, 0.0, 1.0, 1.0], 'expected finite .*, above 0'),
        ('data_preprocessor.std', [1.0, -2.0, 1.0, 1.0], 'expected finite .*, above 0'),
        ('data_preprocessor.mean', [float('nan')] * 4, 'mean is .*, expected finite'),
    ],
)
def test_a_model_that_contradicts_itself(demo, part, value, message):
    demo.merge_from_dict({f'model.{part}': value})
    with pytest.raises(UserError, match=message):
        MODELS.build(demo.model)


@pytest.mark.parametrize('training', [False, True])
def test_an_image_of_other_channels_is_named(demo, training):
    preprocessor = MODELS.build(demo.model).data_preprocessor
    sample = BaseDataElement(metainfo=dict(img_path='/data/a.tif'))
    data = dict(inputs=[torch.zeros(3, 64, 64)], data_samples=[sample])
    with pytest.raises(UserError, match='/data/a.tif has 3 channels, .* takes 4 '):
        preprocessor(data, training)


def test_each_channel_is_normalised_by_its_own_numbers(demo):
    preprocessor = MODELS.build(demo.model).data_preprocessor
    image = torch.rand(4, 64, 64) * 1000
    sample = BaseDataElement()
    found = preprocessor(dict(inputs=[image], data_samples=[sample]))['inputs'][0]
    mean, std = (torch.tensor(FOUR[k]).view(4, 1, 1) for k in ('mean', 'std'))
    torch.testing.assert_close(found, (image - mean) / std)


# Fine-tuning


def model(root, channels):
    cfg = Config.fromfile(root / 'configs/demo/eomt_scenes_semantic.py')
    if channels != 3:
        set_bands(cfg._cfg_dict, mean=[0.0] * channels, std=[1.0] * channels)
    init_default_scope('mmseg')
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('channels', [1, 4])
def test_a_checkpoint_of_three_channels(root, channels):
    name = 'backbone.patch_embed.proj.weight'
    trained, new = model(root, 3).state_dict(), model(root, channels)
    fitted, table = fit_weights(new, trained)
    torch.testing.assert_close(fitted[name], fit_channels(trained[name], channels))
    assert ('new channels', f'{name}: {channel_rule(channels)}') in table
    new.load_state_dict(fitted)
    assert table[0] == ('loaded unchanged', f'{len(trained) - 1} tensors')


def test_a_checkpoint_of_four_channels_into_three_is_one_line(root):
    with pytest.raises(UserError, match='patch_embed those of channels') as error:
        fit_weights(model(root, 3), model(root, 4).state_dict())
    assert '(128, 4, 8, 8), the config makes (128, 3, 8, 8)' in str(error.value)


def test_a_checkpoint_that_is_tested_must_fit(root):
    with pytest.raises(UserError, match='channels from 3 alone'):
        model(root, 4).load_state_dict(model(root, 3).state_dict())


# The whole path


@pytest.fixture
def four_bands(tmp_path):
    """`four_bands('.tif')` writes a data set of three images of four bands."""

    def write(suffix):
        rng = np.random.default_rng(0)
        for folder in ('images/train', 'images/val', 'labels/train', 'labels/val'):
            (tmp_path / folder).mkdir(parents=True)
        for split, name in (('train', 'a'), ('train', 'b'), ('val', 'c')):
            labels = rng.integers(0, 2, (64, 64), np.uint8)
            image = rng.integers(0, 3000, (64, 64, 4), np.uint16)
            image[..., 3] += np.uint16(2000) * labels  # the infrared tells the classes
            Image.fromarray(labels).save(tmp_path / f'labels/{split}/{name}.png')
            path = tmp_path / f'images/{split}/{name}{suffix}'
            if suffix == '.npy':
                np.save(path, image)
            else:
                tifffile = pytest.importorskip('tifffile')
                options = dict(photometric='minisblack', planarconfig='contig')
                tifffile.imwrite(path, image, **options)
        return tmp_path

    return write


def own_config(root, data, suffix):
    """The config that docs/own_data.md shows, made small."""
    page = (root / 'docs/own_data.md').read_text()
    code = page.split('```python\n')[1].split('```')[0]
    code = code.replace('configs/eomt/', f'{root}/configs/eomt/')
    code = code.replace("'data/fields'", repr(str(data))).replace(
        "'.tif'", f'{suffix!r}'
    )
    path = data / 'fields.py'
    path.write_text(code)
    cfg = Config.fromfile(path)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    cfg.merge_from_dict(
        TINY
        | {
            'model.backbone.arch': 'vit_tiny_patch16_224',
            'model.backbone.num_blocks': 2,
            'model.backbone.num_queries': 6,
            'model.decode_head.criterion.num_points': 64,
        }
    )
    set_crop_size(cfg._cfg_dict, (64, 64))
    cfg.dump(path)
    return path


@pytest.mark.parametrize('suffix', ['.tif', '.npy'])
def test_four_bands_from_training_to_pictures(
    root, run_tool, four_bands, tmp_path, suffix
):
    data = four_bands(suffix)
    path, run = own_config(root, data, suffix), tmp_path / 'run'
    run_tool('train', path, '--work-dir', run)
    checkpoint = run / 'iter_2.pth'
    options = ('--work-dir', run / 'test', '--show-dir', run / 'painted')
    scores = run_tool('test', path, checkpoint, *options)
    assert 0 <= scores['mIoU'] <= 100
    assert np.asarray(Image.open(run / 'painted/c.png')).std() > 0

    tool = 'analysis_tools/show_results'
    panel, _ = run_tool(tool, path, checkpoint, '--out', run / 'panels')
    assert np.asarray(Image.open(panel)).std() > 0
    out = run / 'browsed'
    tool = 'analysis_tools/browse_dataset'
    run_tool(tool, path, '--not-show', '--output-dir', out)
    assert len(list(out.glob('*.png'))) == 2


def test_a_band_beyond_the_file_ends_a_training_in_one_line(
    root, run_tool, four_bands, tmp_path
):
    path = own_config(root, four_bands('.npy'), '.npy')
    option = 'train_dataloader.dataset.pipeline.0.bands=[0,1,2,9]'
    with pytest.raises(UserError, match='has 4 bands, 0 to 3, and band 9 is asked for'):
        run_tool('train', path, '--work-dir', tmp_path / 'r', '--cfg-options', option)


@pytest.mark.parametrize('tool', ['predict_video', 'show_merging'])
def test_tools_that_take_photographs_alone(root, run_tool, tmp_path, tool):
    path = root / 'configs/demo/eomt_scenes_bands.py'
    argv = [path, tmp_path / 'a.pth', '--out', tmp_path / 'a.mp4']
    if tool == 'predict_video':
        argv.insert(2, tmp_path)
    with pytest.raises(UserError, match=f'{tool}.py takes photographs'):
        run_tool(f'analysis_tools/{tool}', *argv)


def test_the_counter_knows_the_channels(root):
    from measuring.networks import complexity_of

    counts = [
        complexity_of(cfg).operations
        for cfg in (
            Config.fromfile(root / 'configs/demo/eomt_scenes_semantic.py'),
            config(root),
        )
    ]
    # A product for each pixel, channel and dimension of the embedding.
    assert counts[1] - counts[0] == 64 * 64 * 128
