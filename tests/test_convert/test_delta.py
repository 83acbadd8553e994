"""DINOv3: base + delta is the absolute network; the two are told apart."""

import published
import pytest
import torch
from safetensors.torch import save_file
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from eomt_mm.convert import read_source
from eomt_mm.convert.delta import is_delta, read_base, sign_coherence
from eomt_mm.convert.layouts import OFFICIAL_DINOV3
from eomt_mm.errors import UserError

TINY = (64, 4, 2, 256, 256)
NORMS = ('norm.weight', 'norm1.weight', 'norm2.weight')


@pytest.fixture
def vit():
    """A tiny DINOv3 of transformers, every tensor random."""
    return make_vit(64)


def make_vit(channels):
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=channels,
        intermediate_size=4 * channels,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_register_tokens=4,
    )
    model = DINOv3ViTModel(config)
    for name, tensor in model.state_dict().items():
        torch.nn.init.normal_(tensor, std=0.2)
        if name.endswith(NORMS):
            tensor += 1
    return model


def base_tensors(vit):
    """Names as the authors of DINOv3 publish them: without `model.`."""
    return {
        name.removeprefix('model.'): value for name, value in vit.state_dict().items()
    }


def absolute_and_delta(base, decay=0.4):
    """A network after training with weight decay, and the authors' file of it."""
    shapes = published.dinov3_shapes(TINY, queries=6, classes=7)
    torch.manual_seed(1)
    delta = {name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    absolute = dict(delta)
    for name, value in base.items():
        if name != 'embeddings.mask_token':
            name = published.official_dinov3_name(name)
            delta[name] -= decay * value
            absolute[name] = value + delta[name]
    return absolute, delta


@pytest.mark.parametrize('newer', [False, True])
def test_base_and_delta_are_the_absolute_network(tmp_path, vit, newer):
    base = base_tensors(vit)
    absolute, delta = absolute_and_delta(base)
    torch.save(absolute, tmp_path / 'absolute.bin')
    torch.save(delta, tmp_path / 'delta.bin')
    if newer:  # transformers 5 puts `model.` in front of `layer.`
        vit.save_pretrained(tmp_path)
    else:
        save_file(base, tmp_path / 'model.safetensors')
    whole = read_source(tmp_path / 'absolute.bin')
    added = read_source(tmp_path / 'delta.bin', tmp_path / 'model.safetensors')
    assert added.inventory == whole.inventory
    assert added.network.keys() == whole.network.keys()
    for name, value in whole.network.items():
        assert torch.equal(added.network[name], value), name
    assert whole.layout == 'official, DINOv3'
    assert added.layout == 'official, DINOv3, delta'


def test_halves_are_added_in_fp32(tmp_path, vit):
    base = base_tensors(vit)
    absolute, delta = absolute_and_delta(base)
    torch.save({k: v.half() for k, v in delta.items()}, tmp_path / 'delta.bin')
    save_file(base, tmp_path / 'model.safetensors')
    added = read_source(tmp_path / 'delta.bin', tmp_path / 'model.safetensors').network
    weight = added['backbone.blocks.0.mlp.fc1.weight']
    name = 'mlp.up_proj.weight'
    half = delta[f'network.encoder.backbone.blocks.0.{name}'].half().float()
    assert weight.dtype == torch.float32
    assert torch.equal(weight, base[f'layer.0.{name}'] + half)


@pytest.mark.parametrize('decay', [0.0, 0.1, 0.4, 0.6])
def test_they_are_told_apart(vit, decay):
    """Weight decay makes all differences negative: as uniform as the weights."""
    absolute, delta = (
        OFFICIAL_DINOV3.to_package_names(tensors)[0]
        for tensors in absolute_and_delta(base_tensors(vit), decay)
    )
    assert not is_delta(absolute) and sign_coherence(absolute) > 0.9
    assert is_delta(delta) and sign_coherence(delta) < 0.2


def test_a_delta_alone_is_refused(tmp_path, vit):
    _, delta = absolute_and_delta(base_tensors(vit))
    torch.save(delta, tmp_path / 'delta.bin')
    with pytest.raises(UserError, match='is a delta file: .* gives NaN. Add --base'):
        read_source(tmp_path / 'delta.bin')


def test_a_base_for_a_whole_network_is_refused(tmp_path, vit):
    base = base_tensors(vit)
    absolute, _ = absolute_and_delta(base)
    torch.save(absolute, tmp_path / 'absolute.bin')
    save_file(base, tmp_path / 'model.safetensors')
    with pytest.raises(UserError, match='would count the backbone twice'):
        read_source(tmp_path / 'absolute.bin', tmp_path / 'model.safetensors')


def test_a_base_of_another_size_is_refused(tmp_path, vit):
    _, delta = absolute_and_delta(base_tensors(vit))
    torch.save(delta, tmp_path / 'delta.bin')
    make_vit(32).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r'of another size .* is \(32,\), wanted is'):
        read_source(tmp_path / 'delta.bin', tmp_path / 'model.safetensors')
    short = {k: v for k, v in base_tensors(vit).items() if 'layer.3' not in k}
    save_file(short, tmp_path / 'short.safetensors')
    with pytest.raises(UserError, match=r'blocks\.3\..* is missing, wanted is'):
        read_source(tmp_path / 'delta.bin', tmp_path / 'short.safetensors')


def test_something_else_as_base_is_refused(tmp_path):
    save_file({'conv1.weight': torch.zeros(3)}, tmp_path / 'resnet.safetensors')
    with pytest.raises(UserError, match='is not a DINOv3 .* such as conv1.weight'):
        read_base(tmp_path / 'resnet.safetensors')
