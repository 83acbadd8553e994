"""Models of Hugging Face transformers in a comparison, beside those of configs."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForUniversalSegmentation

from eomt_mm.errors import UserError
from measuring import transformers_models
from measuring.comparison.model import Model, Timing, prepare

SWIN = dict(
    model_type='swin',
    embed_dim=16,
    depths=[1, 1, 1, 1],
    num_heads=[1, 1, 2, 2],
    window_size=4,
    out_features=['stage1', 'stage2', 'stage3', 'stage4'],
)
SMALL = dict(
    num_labels=5,
    num_queries=7,
    decoder_layers=2,
    encoder_layers=1,
    hidden_dim=32,
    dim_feedforward=32,
    encoder_feedforward_dim=32,
    num_attention_heads=2,
    backbone_config=SWIN,
)
KINDS = {
    'mask2former': SMALL | dict(feature_size=32, mask_feature_size=32),
    'oneformer': SMALL | dict(conv_dim=32, mask_dim=32, text_encoder_width=32),
    'maskformer': dict(num_labels=5, backbone_config=SWIN),
    'eomt': dict(num_labels=5, hidden_size=32, num_hidden_layers=2, num_blocks=1,
                 num_attention_heads=2, image_size=64, patch_size=16),
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    def write(kind, content=None):
        path = tmp_path / f'{kind}.json'
        path.write_text(json.dumps(dict(model_type=kind) | (content or KINDS[kind])))
        return path

    return write


@pytest.mark.parametrize('kind', KINDS)
def test_parameters_are_all_counted(config, kind):
    path = config(kind)
    found = transformers_models.complexity_of(f'hf::{path}', (64, 64))
    model = AutoModelForUniversalSegmentation.from_config(
        AutoConfig.from_pretrained(path)
    )
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.size == (64, 64) and found.operations > 1e6
    timing = Timing((64, 64), 2, 'bf16', False, torch.device('cpu'))
    prepare(Model('x', f'hf::{path}'), timing)()


def test_operations_are_those_of_this_package():
    """One network in both layouts is counted alike."""
    from eomt_mm.models import MaskHead, QueryViT
    from measuring.hugging_face import reference_model
    from measuring.operations import count_operations

    torch.manual_seed(0)
    args = dict(embed_dim=64, depth=2, num_heads=2)
    arch = 'vit_small_patch14_reg4_dinov2'
    backbone = QueryViT(arch, 64, 16, 5, 1, pretrained=False, timm_args=args).eval()
    head = MaskHead(64, 3).eval()
    theirs = reference_model(backbone, head)
    images = torch.zeros(1, 3, 64, 64)
    runs = (
        (torch.nn.ModuleList([backbone, head]), lambda: head(*backbone(images))),
        (theirs, lambda: theirs(pixel_values=images)),
    )
    ours, others = (count_operations(run, network) for network, run in runs)
    assert ours == pytest.approx(others, rel=0.01)


def test_a_row(config, run_tool, tmp_path):
    paths = [f'{k}=hf::{config(k)}' for k in ('mask2former', 'oneformer')]
    done = run_tool(
        'analysis_tools/compare', *paths, '--size', 64, 64, '--rounds', 1, '--warmup',
        0, '--no-memory', '--device', 'cpu', '--out', tmp_path / 'out',
    )  # fmt: skip
    assert [m.label for m in done.models] == ['mask2former', 'oneformer']
    assert all(m.images_per_second > 0 and not m.remarks for m in done.models)


def test_a_local_folder_with_weights(config, tmp_path):
    model = AutoModelForUniversalSegmentation.from_config(
        AutoConfig.from_pretrained(config('mask2former'))
    )
    model.save_pretrained(tmp_path / 'model')
    built = transformers_models.build(f'hf::{tmp_path / "model"}')
    for key, value in model.state_dict().items():
        assert torch.equal(built.state_dict()[key], value)


def test_what_is_refused(config, run_tool, tmp_path):
    other = config('bert', dict(hidden_size=32))
    (tmp_path / 'empty').mkdir()
    odd = tmp_path / 'odd.json'
    odd.write_text('[')
    for name, message in (
        (other, "is a model of type 'bert', expected one that segments"),
        (tmp_path / 'absent', 'no such folder or file'),
        (tmp_path / 'empty', 'holds no weights'),
        (odd, 'is not a config of transformers'),
    ):
        with pytest.raises(Exception, match=message) as error:
            transformers_models.build(f'hf::{name}')
        assert '\n' not in str(error.value)


def test_weights_that_do_not_fit(config, tmp_path):
    """transformers fills them in at random, with a report of many lines."""
    place = tmp_path / 'model'
    model = AutoModelForUniversalSegmentation.from_config(
        AutoConfig.from_pretrained(config('eomt'))
    )
    model.save_pretrained(place)
    file = place / 'config.json'
    whole = json.loads(file.read_text())
    for wrong in (dict(hidden_size=64), dict(num_hidden_layers=3)):
        file.write_text(json.dumps(whole | wrong))
        with pytest.raises(UserError, match='do not fit its config.json'):
            transformers_models.build(f'hf::{place}')
    file.write_text(json.dumps(whole))
    assert transformers_models.build(f'hf::{place}')
    weights = place / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(UserError, match='cannot be read'):
        transformers_models.build(f'hf::{place}')
