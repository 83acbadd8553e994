"""Every published checkpoint, by names and shapes, into its config.

Large ones exist on the meta device only; the small ones are real files that go through
the tool.
"""

import published
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file

from eomt_mm.convert.blueprint import blueprint, is_ade20k_panoptic
from eomt_mm.convert.delta import add_base
from eomt_mm.convert.inventory import fitting_configs, take_inventory
from eomt_mm.convert.layouts import DINOV3_VIT, recognise
from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

CONVERT = 'model_converters/eomt2mm'
NOT_NETWORK = ('attn_mask_probs', 'pixel_mean', 'pixel_std', 'empty_weight')


def by_name(repos):
    return pytest.mark.parametrize('repo', repos, ids=lambda repo: repo.name)


@pytest.fixture(scope='module')
def configs(root):
    return {p: Config.fromfile(p) for p in (root / 'configs/eomt').rglob('*.py')}


def count(shapes):
    """Number of parameters."""
    return sum(
        torch.Size(shape).numel()
        for name, shape in shapes.items()
        if not name.endswith(NOT_NETWORK)
    )


def translate(shapes):
    tensors = published.on_meta(shapes)
    network, unused = recognise(list(tensors)).to_package_names(tensors)
    assert len(unused) == len(NOT_NETWORK)
    return network, unused


def check_configs(network, inventory, repo, configs):
    """The configs are found, and take all weights strictly."""
    assert inventory.num_blocks == published.SIZES[repo.size][2]
    fits = fitting_configs(inventory, configs)
    assert [path.stem for path in fits] == list(repo.configs)
    for path in fits:
        plan = blueprint(configs[path], path.name)
        state = plan.to_state_dict(network)
        plan.model.load_state_dict(state, strict=True, assign=True)
        assert plan.model.backbone.num_blocks == inventory.num_blocks
        assert len(plan.dataset_meta['classes']) == repo.classes
        is_panoptic = repo.name.startswith('ade20k_panoptic')
        assert is_ade20k_panoptic(plan.dataset_meta) == is_panoptic
        assert plan.to_network(state).keys() == network.keys()


@by_name(published.DINOV2)
def test_dinov2(repo, configs):
    shapes = published.dinov2_shapes(repo.size, repo.image, repo.queries, repo.classes)
    if repo.parameters:
        assert count(shapes) == repo.parameters
    network, unused = translate(shapes)
    inventory = take_inventory(network, unused, {})
    assert inventory.img_size == repo.image
    check_configs(network, inventory, repo, configs)


@by_name(published.DINOV3)
def test_dinov3(repo, configs, tmp_path):
    shapes = published.dinov3_shapes(repo.size, repo.queries, repo.classes)
    if repo.parameters:
        assert count(shapes) == repo.parameters
    network, unused = translate(shapes)
    base = published.on_meta(published.dinov3_vit_shapes(repo.size))
    network = add_base(network, DINOV3_VIT.to_package_names(base)[0], tmp_path)
    # Beside the files of the hub lies what the tensors do not tell.
    beside = dict(num_queries=repo.queries, image_size=repo.image)
    inventory = take_inventory(network, unused, beside)
    check_configs(network, inventory, repo, configs)

    alone = take_inventory(network, unused, {})
    assert alone.img_size is None
    found = [path.stem for path in fitting_configs(alone, configs)]
    assert set(repo.configs) <= set(found)
    assert '1280' not in found[0]


def load(path, checkpoint):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)
    return model.state_dict()


def test_a_real_file_of_dinov2(run_tool, root, tmp_path, capsys):
    repo = published.DINOV2[0]
    shapes = published.dinov2_shapes(repo.size, repo.image, repo.queries, repo.classes)
    tensors = published.random_tensors(shapes)
    for name, content in (
        ('pytorch_model.bin', tensors),
        # Lightning keeps more beside the weights.
        ('last.ckpt', dict(state_dict=tensors, epoch=23, callbacks={}, loops={})),
    ):
        torch.save(content, tmp_path / name)
        ours = tmp_path / f'{name}.pth'
        run_tool(CONVERT, tmp_path / name, ours)
        assert (
            '\n'.join(
                line.rstrip()
                for line in (
                    '  layout    official, DINOv2',
                    '  backbone  DINOv2 ViT-S: 12 blocks, 384 channels, patches of 16',
                    '  queries   200, in the last 3 blocks',
                    '  classes   133, and "no object"',
                    '  input     640 x 640 pixels',
                    '  config    configs/eomt/eomt_vits_coco_panoptic_640_1x.py',
                    f'{"":12}also fits: configs/eomt/{repo.configs[1]}.py',
                )
            )
            in capsys.readouterr().out
        )
        state = load(root / f'configs/eomt/{repo.configs[0]}.py', ours)
        vit = 'network.encoder.backbone.'
        for theirs, mine in (
            (f'{vit}blocks.11.attn.qkv.weight', 'backbone.blocks.11.attn.qkv.weight'),
            (f'{vit}pos_embed', 'backbone.pos_embed'),
            ('network.q.weight', 'backbone.queries'),
            ('network.class_head.bias', 'panoptic_head.class_head.bias'),
            ('network.mask_head.4.weight', 'panoptic_head.mask_mlp.4.weight'),
            ('network.upscale.1.norm.bias', 'panoptic_head.upscale.1.norm.bias'),
        ):
            assert torch.equal(state[mine], tensors[theirs]), mine


def test_a_real_delta_file_of_dinov3(run_tool, root, tmp_path, capsys):
    repo = published.DINOV3[0]
    shapes = published.dinov3_shapes(repo.size, repo.queries, repo.classes)
    delta = published.random_tensors(shapes)
    for name, value in delta.items():
        if name.endswith(('norm.weight', 'norm1.weight', 'norm2.weight')):
            value -= 1
    base = published.random_tensors(published.dinov3_vit_shapes(repo.size))
    torch.save(delta, tmp_path / 'pytorch_model.bin')
    (tmp_path / 'base').mkdir()
    save_file(base, tmp_path / 'base/model.safetensors')
    ours = tmp_path / 'ours.pth'
    with pytest.raises(UserError, match='is a delta file.*NaN.*--base'):
        run_tool(CONVERT, tmp_path, ours)
    assert not ours.exists()
    capsys.readouterr()

    run_tool(CONVERT, tmp_path, ours, '--base', tmp_path / 'base')
    written = capsys.readouterr().out
    assert 'official, DINOv3, delta' in written
    assert 'the tensors do not show the input size' in written
    state = load(root / f'configs/eomt/{repo.configs[0]}.py', ours)
    vit = 'network.encoder.backbone.blocks.3.'
    for mine, theirs in (
        ('norm1.weight', 'norm1.weight'),
        ('attn.v_bias', 'attention.v_proj.bias'),
        ('mlp.fc2.weight', 'mlp.down_proj.weight'),
        ('gamma_2', 'layer_scale2.lambda1'),
    ):
        expected = base[f'layer.3.{theirs}'] + delta[f'{vit}{theirs}']
        assert torch.equal(state[f'backbone.blocks.3.{mine}'], expected), mine
    keys = state['backbone.blocks.3.attn.qkv.weight'][384:768]
    k_proj = 'attention.k_proj.weight'
    assert torch.equal(keys, base[f'layer.3.{k_proj}'] + delta[f'{vit}{k_proj}'])
    # All outside the backbone is as it is.
    assert torch.equal(state['backbone.queries'], delta['network.q.weight'])
    # Not values but differences: they are not kept.
    assert 'unused' not in torch.load(ours, weights_only=True)
