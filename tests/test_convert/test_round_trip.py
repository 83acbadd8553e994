"""Hugging Face's EoMT to this package and back, against transformers itself."""

import json

import numpy as np
import oracle
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForUniversalSegmentation,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
)

from eomt_mm.errors import UserError

CONVERT = 'model_converters/eomt2mm'
CLASSES = {
    'gelu': EomtForUniversalSegmentation,
    'swiglu': EomtForUniversalSegmentation,
    'dinov3': EomtDinov3ForUniversalSegmentation,
}


def identical(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert torch.equal(ours[name], value), name


def load_back(folder, family):
    model, report = CLASSES[family].from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('family', oracle.FAMILIES)
def test_there_and_back(run_tool, tmp_path, images, family):
    reference = oracle.make_reference(family)
    reference.save_pretrained(tmp_path / 'theirs')
    config = oracle.write_config(tmp_path / 'config.py', family)
    ours, back = tmp_path / 'ours.pth', tmp_path / 'back'

    run_tool(CONVERT, tmp_path / 'theirs', ours, '--config', config)
    model = oracle.build(config, ours)
    found = oracle.outputs(model, images)
    for logits, expected in zip(found, oracle.unmasked(reference, images), strict=True):
        assert oracle.relative(logits, expected) < 1e-5

    run_tool(CONVERT, ours, back, '--to-hf')
    identical(
        load_file(back / 'model.safetensors'),
        load_file(tmp_path / 'theirs/model.safetensors'),
    )
    again = load_back(back, family)
    for one, other in zip(
        oracle.unmasked(again, images), oracle.unmasked(reference, images), strict=True
    ):
        assert torch.equal(one, other)
    # Everything that config.json says of the network is as it was.
    before, after = (
        json.loads((folder / 'config.json').read_text())
        for folder in (tmp_path / 'theirs', back)
    )
    # The rest concerns the start of a training, or is the names of the classes.
    differ = {'id2label', 'label2id', 'layerscale_value', 'train_num_points'}
    for key in before.keys() - differ - {'transformers_version'}:
        assert after[key] == before[key], key
    assert after['id2label']['0'] == 'sky'


@pytest.mark.parametrize('family', ['gelu', 'dinov3'])
def test_half_precision_stays(run_tool, tmp_path, family):
    oracle.make_reference(family).half().save_pretrained(tmp_path / 'theirs')
    config = oracle.write_config(tmp_path / 'config.py', family)
    run_tool(CONVERT, tmp_path / 'theirs', tmp_path / 'a.pth', '--config', config)
    oracle.build(config, tmp_path / 'a.pth')
    run_tool(CONVERT, tmp_path / 'a.pth', tmp_path / 'back', '--to-hf')
    identical(
        load_file(tmp_path / 'back/model.safetensors'),
        load_file(tmp_path / 'theirs/model.safetensors'),
    )


def test_names_of_transformers_4_are_read(run_tool, tmp_path, images):
    """Its SwiGLU had one matrix for gate and value, and `weights_in`, `weights_out`."""
    reference = oracle.make_reference('swiglu')
    tensors = {}
    for name, value in reference.state_dict().items():
        if 'gate_proj' in name:
            up = reference.state_dict()[name.replace('gate', 'up')]
            tensors[name.replace('gate_proj', 'weights_in')] = torch.cat((value, up))
        elif 'up_proj' not in name:
            tensors[name.replace('down_proj', 'weights_out')] = value.clone()
    save_file(tensors, tmp_path / 'old.safetensors')
    config = oracle.write_config(tmp_path / 'config.py', 'swiglu')
    ours = tmp_path / 'ours.pth'
    run_tool(CONVERT, tmp_path / 'old.safetensors', ours, '--config', config)
    found = oracle.outputs(oracle.build(config, ours), images)
    for logits, expected in zip(found, oracle.unmasked(reference, images), strict=True):
        assert oracle.relative(logits, expected) < 1e-5


def test_sharded_safetensors(run_tool, tmp_path):
    reference = oracle.make_reference('gelu')
    reference.save_pretrained(tmp_path / 'theirs', max_shard_size='300KB')
    assert not (tmp_path / 'theirs/model.safetensors').exists()
    config = oracle.write_config(tmp_path / 'config.py', 'gelu')
    run_tool(CONVERT, tmp_path / 'theirs', tmp_path / 'a.pth', '--config', config)
    run_tool(CONVERT, tmp_path / 'a.pth', tmp_path / 'back', '--to-hf')
    identical(load_file(tmp_path / 'back/model.safetensors'), reference.state_dict())
    (tmp_path / 'theirs/model-00002-of-00002.safetensors').unlink(missing_ok=True)
    for shard in sorted((tmp_path / 'theirs').glob('model-*'))[-1:]:
        shard.unlink()
    with pytest.raises(UserError, match="names 'model-.*', which is not beside it"):
        run_tool(CONVERT, tmp_path / 'theirs', tmp_path / 'b.pth', '--config', config)


def test_what_is_written_is_builtin(run_tool, tmp_path, capsys):
    reference = oracle.make_reference('gelu')
    reference.attn_mask_probs.copy_(torch.tensor([1.0, 0.25]))
    reference.save_pretrained(tmp_path / 'theirs')
    config = oracle.write_config(tmp_path / 'config.py', 'gelu')
    ours = tmp_path / 'ours.pth'
    run_tool(CONVERT, tmp_path / 'theirs', ours, '--config', config)
    assert 'training had not ended (probabilities 1, 0.25)' in capsys.readouterr().out

    saved = torch.load(ours, weights_only=True)
    assert set(saved) == {'meta', 'state_dict', 'unused'}
    # Trap: the stored probabilities would mask the start of the next training.
    assert not any('mask_probs' in name for name in saved['state_dict'])
    assert set(saved['unused']) == {'attn_mask_probs', 'criterion.empty_weight'}
    assert oracle.build(config, ours).backbone.mask_probs == [0.0, 0.0]
    meta = saved['meta']['dataset_meta']
    assert len(meta['classes']) == len(meta['palette']) == 7
    # No bigger than its tensors: nothing is stored twice.
    size = sum(v.numel() * v.element_size() for v in saved['state_dict'].values())
    assert ours.stat().st_size < size * 1.1 + 50_000


def test_other_function_behind_equal_shapes_is_refused(run_tool, tmp_path):
    """config.json beside the file says eps 1e-6; DINOv3 of timm has 1e-5."""
    oracle.make_reference('dinov3').save_pretrained(tmp_path / 'theirs')
    path = tmp_path / 'theirs/config.json'
    beside = json.loads(path.read_text())
    for key, value in (('layer_norm_eps', 1e-6), ('num_attention_heads', 2)):
        path.write_text(json.dumps(beside | {key: value}))
        config = oracle.write_config(tmp_path / 'config.py', 'dinov3')
        with pytest.raises(UserError, match=f'{key} is {value} there and'):
            run_tool(
                *(CONVERT, tmp_path / 'theirs', tmp_path / 'a.pth'),
                *('--config', config),
            )
    # Of another model, which happens to lie in the same folder: no matter.
    path.write_text(json.dumps(dict(num_attention_heads=12, model_type='bert')))
    run_tool(CONVERT, tmp_path / 'theirs', tmp_path / 'a.pth', '--config', config)


def test_dinov3_of_another_size_is_told(run_tool, tmp_path, capsys):
    """No tensor tells the size of a ViT with rotary codes."""
    reference = oracle.make_reference('dinov3', image_size=128)
    reference.save_pretrained(tmp_path / 'theirs')
    config = oracle.write_config(tmp_path / 'config.py', 'dinov3')
    run_tool(CONVERT, tmp_path / 'theirs', tmp_path / 'a.pth', '--config', config)
    said = f'note: {config} takes 64 x 64 pixels, the file was made for 128 x 128'
    assert said in capsys.readouterr().out


@pytest.mark.parametrize('has_bias', [True, False])
def test_dinov3_without_biases(run_tool, tmp_path, images, capsys, has_bias):
    torch.manual_seed(0)
    options = dict(hidden_size=64, num_hidden_layers=4, num_attention_heads=4)
    options |= dict(image_size=64, num_blocks=2, num_queries=6, num_labels=7)
    options |= dict(intermediate_size=256, layer_norm_eps=1e-5)
    biases = dict(query_bias=has_bias, value_bias=has_bias)
    reference = EomtDinov3ForUniversalSegmentation(
        EomtDinov3Config(**options, **biases)
    ).eval()
    reference.save_pretrained(tmp_path / 'theirs')
    arch = 'vit_small_patch16_dinov3' + '_qkvb' * has_bias
    config = oracle.write_config(tmp_path / 'config.py', arch)
    run_tool(CONVERT, tmp_path / 'theirs', tmp_path / 'a.pth', '--config', config)
    assert 'backbone  DINOv3 ViT: 4 blocks' in capsys.readouterr().out
    found = oracle.outputs(oracle.build(config, tmp_path / 'a.pth'), images)
    for logits, expected in zip(found, oracle.unmasked(reference, images), strict=True):
        assert oracle.relative(logits, expected) < 1e-5


def test_ade20k_panoptic_is_permuted(run_tool, tmp_path):
    """Things first here, the release's order there."""
    reference = oracle.make_reference('gelu', classes=150, image_size=640)
    reference.save_pretrained(tmp_path / 'theirs')
    base = 'configs/eomt/eomt_vitl_ade20k_panoptic_640.py'
    config = oracle.write_config(tmp_path / 'config.py', 'gelu', base)
    run_tool(CONVERT, tmp_path / 'theirs', tmp_path / 'a.pth', '--config', config)
    saved = torch.load(tmp_path / 'a.pth', weights_only=True)
    rows = saved['state_dict']['panoptic_head.class_head.weight']
    theirs = reference.class_predictor.weight
    classes = saved['meta']['dataset_meta']['classes']
    for name, label in (('bed', 7), ('window', 8), ('wall', 0), ('sky', 2)):
        assert torch.equal(rows[classes.index(name)], theirs[label]), name
    assert torch.equal(rows[150], theirs[150])

    run_tool(CONVERT, tmp_path / 'a.pth', tmp_path / 'back', '--to-hf')
    identical(
        load_file(tmp_path / 'back/model.safetensors'),
        load_file(tmp_path / 'theirs/model.safetensors'),
    )
    names = json.loads((tmp_path / 'back/config.json').read_text())['id2label']
    assert [names[str(i)] for i in (0, 2, 7, 8)] == ['wall', 'sky', 'bed', 'window']
    assert len(names) == 150


@pytest.mark.parametrize('task', ['semantic', 'panoptic'])
def test_processor_prepares_images_as_the_pipeline_does(run_tool, tmp_path, task):
    oracle.make_reference('gelu').save_pretrained(tmp_path / 'theirs')
    base = f'configs/demo/eomt_scenes_{task}.py'
    config = oracle.write_config(tmp_path / 'config.py', 'gelu', base)
    run_tool(CONVERT, tmp_path / 'theirs', tmp_path / 'a.pth', '--config', config)
    run_tool(CONVERT, tmp_path / 'a.pth', tmp_path / 'back', '--to-hf')
    processor = AutoImageProcessor.from_pretrained(tmp_path / 'back')
    photo = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    pixels = processor(Image.fromarray(photo), return_tensors='pt').pixel_values
    # Two windows along the long side, or one image that is padded with raw 0.
    assert pixels.shape == (2 if task == 'semantic' else 1, 3, 64, 64)
    mean, std = (
        torch.tensor([123.675, 116.28, 103.53]),
        torch.tensor([58.395, 57.12, 57.375]),
    )
    if task == 'semantic':
        expected = (torch.from_numpy(photo[:, :64]).float() - mean) / std
        torch.testing.assert_close(
            pixels[0], expected.permute(2, 0, 1), atol=1e-4, rtol=0
        )
    else:
        expected = (-mean / std)[:, None].expand(3, 64)
        torch.testing.assert_close(pixels[0, :, -1], expected, atol=1e-4, rtol=0)


def test_inferencers_take_a_converted_checkpoint(run_tool, tmp_path, real_data):
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer

    oracle.make_reference('gelu').save_pretrained(tmp_path / 'theirs')
    photo = str(next((real_data / 'ade20k_mini').rglob('*.jpg')))
    with Image.open(photo) as image:
        size = image.size[::-1]
    for task, make in (
        ('semantic', lambda c, w: MMSegInferencer(c, w, device='cpu')),
        (
            'panoptic',
            lambda c, w: DetInferencer(c, w, device='cpu', show_progress=False),
        ),
    ):
        base = f'configs/demo/eomt_scenes_{task}.py'
        config = oracle.write_config(tmp_path / f'{task}.py', 'gelu', base)
        checkpoint = tmp_path / f'{task}.pth'
        run_tool(CONVERT, tmp_path / 'theirs', checkpoint, '--config', config)
        inferencer = make(str(config), str(checkpoint))
        names = inferencer.model.dataset_meta['classes']
        assert names[0] == ('sky' if task == 'semantic' else 'disc')
        found = inferencer(photo, out_dir=str(tmp_path / task))
        assert len(list((tmp_path / task / 'vis').iterdir())) == 1
        if task == 'semantic':
            assert found['predictions'].shape == size


def test_a_model_trained_here_goes_to_transformers(run_tool, scenes, tmp_path, images):
    config = oracle.write_config(tmp_path / 'config.py', 'dinov3')
    data = f'data_root={scenes}'
    run_tool(
        *('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', data),
        *('train_cfg.max_iters=2', 'train_cfg.val_interval=2'),
        *('default_hooks.checkpoint.interval=2', 'param_scheduler.warmup=(0,0)'),
        *('train_dataloader.batch_size=2', 'model.decode_head.criterion.num_points=64'),
    )
    trained = tmp_path / 'run/iter_2.pth'
    folder = tmp_path / 'hub'
    run_tool(CONVERT, trained, folder, '--to-hf')  # the config is in the checkpoint
    model = AutoModelForUniversalSegmentation.from_pretrained(folder)
    assert isinstance(model, EomtDinov3ForUniversalSegmentation)
    # As it stands, without setting the probabilities: they are 0.
    with torch.no_grad():
        theirs = model.eval()(pixel_values=images)
    classes, masks = oracle.outputs(oracle.build(config, trained), images)
    assert oracle.relative(classes, theirs.class_queries_logits) < 1e-5
    assert oracle.relative(masks, theirs.masks_queries_logits) < 1e-5
    assert model.config.id2label[0] == 'sky'
    assert model.config.train_num_points == 64
    assert model.criterion.empty_weight.tolist() == pytest.approx([1.0] * 7 + [0.1])

    run_tool(CONVERT, folder, tmp_path / 'again.pth', '--config', config)
    options = ('--work-dir', tmp_path / 'test', '--cfg-options', data)
    before, after = (
        run_tool('test', config, checkpoint, *options)
        for checkpoint in (trained, tmp_path / 'again.pth')
    )
    assert before == after and before['mIoU'] >= 0
