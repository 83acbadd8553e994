"""ViT-Adapter against a plain transcription, and what the ladder asks of it."""

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from eomt_mm.engine.layer_decay import layer_decay_scale
from eomt_mm.errors import UserError
from eomt_mm.models import PlainViT
from eomt_mm.models.baselines import ViTAdapter
from eomt_mm.models.baselines import deformable_attention as deformable
from eomt_mm.models.baselines.deformable_attention import DeformableAttention

STRIDES = (4, 8, 16, 32)


@pytest.fixture
def backbone(adapter_config):
    """An adapter whose parameters let every part matter."""
    torch.manual_seed(0)
    backbone = MODELS.build(adapter_config)
    for name, parameter in backbone.named_parameters():
        std = 2.0 if 'sampling_offsets' in name else 0.2
        torch.nn.init.normal_(parameter, std=std)
    for module in backbone.modules():
        if isinstance(module, torch.nn.SyncBatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return backbone.eval()


def bilinear(image, x, y):
    """Read an image (rows, cols, C) at one place in pixels; zero outside."""
    rows, cols, _ = image.shape
    total = torch.zeros(image.shape[2])
    left, top = int(torch.floor(x)), int(torch.floor(y))
    for row in (top, top + 1):
        for col in (left, left + 1):
            if 0 <= row < rows and 0 <= col < cols:
                weight = (1 - abs(x - col)) * (1 - abs(y - row))
                total = total + weight * image[row, col]
    return total


def deformable_reference(module, query, value, query_grids, value_grids):
    """Deformable attention of one image, one point at a time."""
    attn = module.attn
    heads, levels, points = attn.num_heads, attn.num_levels, attn.num_points
    values = F.linear(value, attn.value_proj.weight, attn.value_proj.bias)
    values = values.unflatten(1, (heads, -1))
    offsets = attn.sampling_offsets(query).view(-1, heads, levels, points, 2)
    weights = attn.attention_weights(query).view(-1, heads, levels * points)
    weights = weights.softmax(-1).view(-1, heads, levels, points)
    places = [
        ((col + 0.5) / cols, (row + 0.5) / rows)
        for rows, cols in query_grids
        for row in range(rows)
        for col in range(cols)
    ]
    starts = [0]
    for rows, cols in value_grids:
        starts.append(starts[-1] + rows * cols)
    out = []
    for i, (px, py) in enumerate(places):
        for head in range(heads):
            total = 0
            for level, (rows, cols) in enumerate(value_grids):
                image = values[starts[level] : starts[level + 1], head]
                image = image.unflatten(0, (rows, cols))
                for point in range(points):
                    dx, dy = offsets[i, head, level, point]
                    sample = bilinear(image, px * cols + dx - 0.5, py * rows + dy - 0.5)
                    total = total + weights[i, head, level, point] * sample
            out.append(total)
    return attn.output_proj(torch.stack(out).view(len(places), -1))


@pytest.mark.parametrize('value_grids', [[(4, 6)], [(8, 12), (4, 6), (2, 3)]])
def test_deformable_attention_equals_plain_sampling(value_grids):
    torch.manual_seed(0)
    query_grids = [(4, 6), (2, 3)]
    attn = DeformableAttention(16, 2, query_grids, value_grids, 4, 0.5)
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    query = torch.randn(2, 30, 16)
    value = torch.randn(2, sum(rows * cols for rows, cols in value_grids), 16)
    with torch.no_grad():
        ours = attn(query, value)
        for i in range(2):
            expected = deformable_reference(
                attn, query[i], value[i], query_grids, value_grids
            )
            torch.testing.assert_close(ours[i], expected)


def conv_norm(module, x, stride):
    """Convolution without bias, batch norm in testing, ReLU."""
    norm = module.norm
    x = F.conv2d(x, module.conv.weight, None, stride, 1)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    return (x * scale[:, None, None] + shift[:, None, None]).relu()


def layer_norm(module, x):
    return F.layer_norm(x, (x.shape[-1],), module.weight, module.bias, 1e-6)


def sequence(image):
    return image[0].flatten(1).T


def adapter_reference(backbone, image):
    """The paper's equations for one image of 64 pixels, patches of 8."""
    adapter, prior = backbone.adapter, backbone.adapter.prior
    grids, patches = [(8, 8), (4, 4), (2, 2)], [(8, 8)]

    x = conv_norm(prior.stem[0], image, 2)
    x = conv_norm(prior.stem[1], x, 1)
    c = [F.max_pool2d(conv_norm(prior.stem[2], x, 1), 3, 2, 1)]
    for conv in prior.convs:
        c.append(conv_norm(conv, c[-1], 2))
    c = [F.conv2d(m, p.weight, p.bias) for m, p in zip(c, prior.projections)]  # noqa: B905
    finest = c[0]
    c = torch.cat([sequence(m) + adapter.level_embed[i] for i, m in enumerate(c[1:])])

    tokens, stages = backbone.embed(image), []
    for stage in range(4):
        injector = adapter.injectors[stage]
        vit = tokens[0, 1:]  # without CLS
        vit = vit + injector.gamma * deformable_reference(
            injector.attn,
            layer_norm(injector.query_norm, vit),
            layer_norm(injector.value_norm, c),
            patches,
            grids,
        )
        tokens = backbone.blocks[stage](torch.cat((tokens[:, :1], vit[None]), 1))
        vit = tokens[0, 1:]
        stages.append(vit.T.unflatten(1, (8, 8))[None])
        for extractor in adapter.extractors[stage]:
            c = c + deformable_reference(
                extractor.attn,
                layer_norm(extractor.query_norm, c),
                layer_norm(extractor.value_norm, vit),
                grids,
                patches,
            )
            ffn = extractor.ffn
            hidden = ffn.fc1(layer_norm(extractor.ffn_norm, c)).T  # (8, 84)
            mixed = []
            for part, grid in zip(hidden.split([64, 16, 4], 1), grids, strict=True):
                part = part.unflatten(1, grid)[None]
                part = F.conv2d(part, ffn.conv.weight, ffn.conv.bias, 1, 1, groups=8)
                mixed.append(sequence(part))
            c = c + ffn.fc2(F.gelu(torch.cat(mixed)))

    maps = [
        part.T.unflatten(1, grid)[None]
        for part, grid in zip(c.split([64, 16, 4]), grids, strict=True)
    ]
    up = adapter.upscale
    maps = [F.conv_transpose2d(maps[0], up.weight, up.bias, 2) + finest, *maps]
    out = []
    for norm, feature, stage in zip(adapter.norms, maps, stages, strict=True):
        size = feature.shape[2:]
        feature = feature + F.interpolate(stage, size, mode='bilinear')
        mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]
        feature = (feature - mean) / (var + norm.eps).sqrt()
        out.append(feature * norm.weight[:, None, None] + norm.bias[:, None, None])
    return out


def test_outputs_equal_a_plain_transcription(backbone):
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours = backbone(images)
        for i in range(2):
            expected = adapter_reference(backbone, images[i : i + 1])
            for a, b in zip(ours, expected, strict=True):
                torch.testing.assert_close(a[i], b[0], rtol=1e-4, atol=1e-4)


def test_maps_have_the_strides_and_channels_of_the_ladder(backbone):
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert [x.shape for x in maps] == [(2, 32, 64 // s, 64 // s) for s in STRIDES]


def test_the_vit_is_left_as_it_is_at_the_start(adapter_config):
    torch.manual_seed(0)
    backbone = MODELS.build(adapter_config).eval()
    options = {k: v for k, v in adapter_config.items() if k != 'type'}
    plain = PlainViT(**options).eval()
    missing, unexpected = plain.load_state_dict(backbone.state_dict(), strict=False)
    assert not missing
    assert all(name.startswith('adapter.') for name in unexpected)
    seen = []
    for model in (backbone, plain):
        model.blocks[-1].register_forward_hook(lambda *args: seen.append(args[2]))
        with torch.no_grad():
            model(torch.ones(1, 3, 64, 64))
    assert torch.equal(*seen)


def test_every_parameter_learns_but_the_norm_that_is_not_used(adapter_config):
    torch.manual_seed(0)
    backbone = MODELS.build(adapter_config).train()
    torch.nn.init.ones_(backbone.adapter.injectors[0].gamma)
    maps = backbone(torch.randn(2, 3, 64, 64))
    sum(x.square().mean() for x in maps).backward()
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is None) is name.startswith('norm.'), name
        assert parameter.requires_grad is not name.startswith('norm.'), name


def test_the_adapter_counts_as_new(adapter_config, tmp_path):
    weights = timm.create_model(
        'vit_tiny_patch16_224',
        num_classes=0,
        **dict(img_size=64, patch_size=8, **adapter_config.timm_args),
    ).state_dict()
    path = str(tmp_path / 'model.safetensors')
    safetensors.torch.save_file(weights, path)
    backbone = MODELS.build(adapter_config | dict(pretrained=path))
    before = {k: v.clone() for k, v in backbone.adapter.state_dict().items()}
    backbone.init_weights()
    state = backbone.state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert all(torch.equal(state[f'adapter.{k}'], v) for k, v in before.items())
    assert layer_decay_scale('adapter.level_embed', 24, 0.8) == 1


def test_deformable_attention_stays_in_single_precision(backbone):
    images = torch.randn(1, 3, 64, 64)
    seen = []
    for module in backbone.modules():
        if isinstance(module, DeformableAttention):
            module.attn.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    with torch.autocast('cpu', torch.bfloat16):
        maps = backbone(images)
    assert seen == [torch.float32] * 10
    assert all(x.isfinite().all() for x in maps)


@pytest.mark.parametrize(
    ('compiled', 'kernel'), [('not available', False), ('12.8', True)]
)
def test_pytorch_takes_over_where_mmcv_has_no_kernel(monkeypatch, compiled, kernel):
    monkeypatch.setattr(deformable, 'get_compiling_cuda_version', lambda: compiled)
    monkeypatch.setattr(deformable.mmcv_module, 'IS_CUDA_AVAILABLE', True)
    deformable.use_pytorch_where_no_kernel()
    assert deformable.mmcv_module.IS_CUDA_AVAILABLE is kernel


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(img_size=48), '48 x 48 is not a multiple of 32'),
        (dict(timm_args=dict(embed_dim=32, depth=5)), 'has 5 blocks: .* multiple of 4'),
    ],
)
def test_wrong_arguments_are_explained(adapter_config, change, message):
    options = {k: v for k, v in (adapter_config | change).items() if k != 'type'}
    with pytest.raises(UserError, match=message):
        ViTAdapter(**options)
