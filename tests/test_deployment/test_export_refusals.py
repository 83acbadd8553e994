"""What the export refuses, in one line, with nothing left behind."""

import resource
import signal
from types import SimpleNamespace

import pytest
import torch

from eomt_mm.errors import UserError
from exporting import check
from exporting.files import OPSETS, write_onnx, write_program

THRESHOLD = dict(type='eomt_mm.ALGM', threshold=0.9, local_block=1, global_block=2)
SIZED = dict(type='eomt_mm.ToMe', r=3)


def changed(model, tmp_path, *replacements):
    """The same checkpoint with a config that says something else."""
    text = model.config.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    config = tmp_path / 'changed.py'
    config.write_text(text)
    return SimpleNamespace(config=config, checkpoint=model.checkpoint)


@pytest.fixture
def refused(export, tmp_path):
    """`refused(model, message, *options)`; nothing is written."""

    def check(model, message, *options, out=None):
        folder = tmp_path / 'out'
        with pytest.raises(UserError, match=message) as caught:
            export(model, out or folder / 'model.onnx', *options)
        assert '\n' not in str(caught.value)
        assert not folder.exists()

    return check


@pytest.fixture(scope='module')
def model(tiny):
    return tiny('semantic')


def test_a_checkpoint_that_does_not_fit(model, refused, tmp_path):
    other = changed(model, tmp_path, ('num_queries=8', 'num_queries=9'))
    refused(other, 'the checkpoint does not fit the config')
    missing = SimpleNamespace(config=model.config, checkpoint=tmp_path / 'none.pth')
    refused(missing, 'checkpoint not found')


def test_masks_in_the_config(model, refused, tmp_path):
    masked = changed(
        model, tmp_path, ('num_blocks=2,', 'num_blocks=2, mask_probs=[0.0, 0.5],')
    )
    refused(masked, r'mask_probs is \[0.0, 0.5\]: the mask annealing is not finished')


@pytest.mark.parametrize('name', ['MaskAnnealingHook', 'AdaptiveMaskAnnealingHook'])
def test_annealing_that_is_not_finished(model, refused, tmp_path, name):
    hook = f"custom_hooks = [dict(type='eomt_mm.{name}')]\n"
    hook += 'train_cfg = dict(max_iters=120)\ndefault_scope'
    annealed = changed(model, tmp_path, ('default_scope', hook))
    content = torch.load(model.checkpoint)
    annealed.checkpoint = tmp_path / 'early.pth'
    torch.save(content | {'meta': {'iter': 60}}, annealed.checkpoint)
    refused(annealed, 'iteration 60, .* ends, at iteration 100 of 120. Export a later')


def test_merging(tiny, refused):
    refused(tiny('semantic', 'dinov2', THRESHOLD), 'fix the numbers with .*keep')
    sized = tiny('semantic', 'dinov2', SIZED)
    refused(sized, 'fp16 with .*proportional_attention', '--dtype', 'fp16')


def test_outputs(model, refused, tmp_path):
    (tmp_path / 'file').touch()
    refused(model, 'cannot be written', out=tmp_path / 'file/model.onnx')
    refused(model, 'ending in .onnx or .pt2', out=tmp_path / 'out/model.pth')
    (tmp_path / 'taken.onnx').mkdir()
    refused(model, 'cannot be written', out=tmp_path / 'taken.onnx')


@pytest.mark.parametrize('opset', [OPSETS[0] - 1, OPSETS[1] + 1])
def test_opsets(model, refused, opset):
    refused(model, f'--opset {opset}: expected {OPSETS[0]}', '--opset', opset)


def test_a_batch_that_fits_no_memory(model, refused):
    refused(model, '--batch 10000000: expected at most 1024', '--batch', 10**7)


def test_other_bands(model, refused, tmp_path):
    """A checkpoint of two bands, whose loader was forgotten."""
    three = 'mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]'
    two = changed(
        model,
        tmp_path,
        ('num_queries=8', 'num_queries=8, in_channels=2'),
        ('bgr_to_rgb=True', 'bgr_to_rgb=False'),
        (three, 'mean=[1, 2], std=[1, 2]'),
    )
    content = torch.load(model.checkpoint)
    weights = content['state_dict']
    name = 'backbone.patch_embed.proj.weight'
    weights[name] = weights[name][:, :2]
    two.checkpoint = tmp_path / 'two.pth'
    torch.save(content, two.checkpoint)
    refused(two, 'in_channels is 2: exported models .* take RGB images')


def test_numbers_that_the_predictor_would_refuse(tiny, refused):
    """What is written can also be opened."""
    panoptic = tiny('panoptic')
    for value in (10**6, -1, 'x'):
        refused(
            panoptic,
            f"max_per_image': '?{value}.* expected sides of 1 to 8192",
            *('--cfg-options', f'model.test_cfg.max_per_image={value}'),
        )
    refused(
        panoptic,
        'the best max_per_image, and that is 0',
        *('--with-postprocess', '--cfg-options', 'model.test_cfg.max_per_image=0'),
    )


@pytest.mark.parametrize('name', ['model.onnx', 'model.pt2'])
def test_a_full_disk(name, tmp_path):
    """An error with a line, where PyTorch's writer would end the process."""
    images = torch.zeros(1, 64)
    program = torch.export.export(torch.nn.Linear(64, 64), (images,))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limit[1]))
    try:
        with pytest.raises(OSError, match='File too large'):
            if name == 'model.pt2':
                write_program(program, tmp_path / name, {})
            else:
                write_onnx(program, tmp_path / name, ['class_logits'], {}, OPSETS[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)


def test_photos(model, refused, tmp_path):
    refused(model, 'no such file', '--photo', tmp_path / 'none.jpg')
    (tmp_path / 'text.jpg').write_text('hello')
    refused(model, 'not an image that can be read', '--photo', tmp_path / 'text.jpg')


def test_no_photo_at_hand(model, run_tool, tmp_path):
    with pytest.raises(UserError, match='give one with --photo'):
        run_tool(
            'deployment/export',
            *(model.config, model.checkpoint, '--out', tmp_path / 'model.onnx'),
        )


def test_other_models_and_pipelines(model, refused, tmp_path):
    stock = changed(
        model,
        tmp_path,
        ('eomt_mm.EoMTSegmentor', 'EncoderDecoder'),
        ('test_cfg=dict()', "test_cfg=dict(mode='whole')"),
        ('num_classes=4', 'num_classes=4, embed_dims=32, patch_size=8'),
    )
    refused(stock, 'EncoderDecoder is no EoMT of this package')
    before = ('eomt_mm.EoMTSegDataPreProcessor', 'SegDataPreProcessor')
    refused(changed(model, tmp_path, before), 'pads after the normalisation')
    step = (
        "type='eomt_mm.ResizeShortSide', size=64",
        "type='Resize', scale=(64, 64), keep_ratio=True",
    )
    refused(changed(model, tmp_path, step), 'a step Resize, which .* cannot repeat')
    classes = ("'sky', 'sea')", "'sky')")
    refused(changed(model, tmp_path, classes), '4 classes, but the test dataset has 3')


@pytest.mark.parametrize('option', ['tiles=dict()', "box_from='largest_component'"])
def test_results_that_the_predictor_does_not_make(tiny, refused, tmp_path, option):
    model = changed(
        tiny('instance'), tmp_path, ('instance_on=True', f'instance_on=True, {option}')
    )
    name = option.partition('=')[0]
    refused(model, f'test_cfg.{name} is .*--cfg-options model.test_cfg.{name}=')


def test_a_file_that_differs_is_not_kept(model, refused, monkeypatch):
    monkeypatch.setitem(check.LIMITS, 'fp32', 0.0)
    refused(model, 'differs from PyTorch: .* expected at most 0e.00 in fp32. Nothing')


def test_no_number_is_a_difference():
    def run(images):
        return [torch.full((1, 2), float('nan')), torch.ones(1, 2)]

    class Network:
        outputs = ['class_logits', 'mask_logits']

        def __call__(self, images):
            return torch.ones(1, 2), torch.ones(1, 2)

    found = check.differences(run, Network(), torch.zeros(1, 3, 2, 2), 1)
    assert found == {'class_logits': float('inf'), 'mask_logits': 0.0}
    with pytest.raises(UserError, match='class_logits by inf'):
        check.require(found, 'fp16')
