"""Merging inside the backbone, against a walk written out token by token."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from eomt_mm.errors import UserError
from eomt_mm.models import ALGM
from eomt_mm.models.network import FastNetwork, Network
from eomt_mm.registry import MODELS

ALGM_MID = dict(type='eomt_mm.ALGM', threshold=0.75, global_block=3)
POLICIES = ['min', 'group', 'image']
ROTARY = ['eva02', 'dinov3']


def lists_of_tokens(vit, image, threshold, local_block, global_block):
    """ALGM of one image, as lists of (token, set of patches), in plain loops."""
    x = vit.embed(image[None])[0]
    prefix = x[: vit.num_prefix_tokens]
    tokens = [(t, {i}) for i, t in enumerate(x[vit.num_prefix_tokens :])]
    rows, cols = vit.grid
    for number, block in enumerate(vit.blocks, 1):
        if number == vit.depth - vit.num_blocks + 1:
            prefix = torch.cat((vit.queries, prefix))
        x = torch.cat((prefix, torch.stack([t for t, _ in tokens])))[None]
        x = (x + block.ls1(block.attn(block.norm1(x))))[0]
        prefix, rest = x[: len(prefix)], x[len(prefix) :]
        tokens = [(t, s) for t, (_, s) in zip(rest, tokens, strict=True)]
        if number == local_block:
            tokens = merge_windows(tokens, rows, cols, threshold)
        if number == global_block:
            tokens = merge_pairs(tokens, number)
        x = torch.cat((prefix, torch.stack([t for t, _ in tokens])))[None]
        x = (x + block.ls2(block.mlp(block.norm2(x))))[0]
        prefix, rest = x[: len(prefix)], x[len(prefix) :]
        tokens = [(t, s) for t, (_, s) in zip(rest, tokens, strict=True)]
    patches = torch.zeros(rows * cols, x.shape[1])
    for token, members in tokens:
        patches[sorted(members)] = vit.norm(token)
    return vit.norm(prefix[: vit.num_queries]), patches, [s for _, s in tokens]


def cosine(a, b):
    return F.cosine_similarity(a, b, dim=0).item()


def mean(parts):
    members = set().union(*(s for _, s in parts))
    return sum(len(s) * t for t, s in parts) / len(members), members


def merge_windows(tokens, rows, cols, threshold):
    merged, rest = [], dict(enumerate(tokens))
    for top in range(0, rows - 1, 2):
        for left in range(0, cols - 1, 2):
            ids = [(top + i) * cols + left + j for i in (0, 1) for j in (0, 1)]
            score = sum(
                cosine(tokens[i][0], tokens[j][0]) for i in ids for j in ids if i != j
            )
            if score / 12 >= threshold:
                merged.append((score, mean([rest.pop(i) for i in ids])))
    merged.sort(key=lambda item: -item[0])
    return [token for _, token in merged] + list(rest.values())


def merge_pairs(tokens, number):
    a, b = tokens[::2], [[t] for t in tokens[1::2]]
    best = [max((cosine(t, o[0][0]), -j) for j, o in enumerate(b)) for t, _ in a]
    scores = torch.tensor([s for s, _ in best])
    limit = scores.mean() + scores.std() / number
    kept = []
    for token, score, (_, partner) in zip(a, scores, best, strict=True):
        if score >= limit:
            b[-partner].append(token)
        else:
            kept.append(token)
    return kept + [mean(parts) for parts in b]


@pytest.mark.parametrize('img_size', [64, (56, 72)], ids=['even', 'odd grid'])
def test_equals_the_walk_token_by_token(tiny, images, img_size):
    vit = tiny(ALGM_MID, img_size=img_size)
    images = F.interpolate(images, vit.img_size)
    with torch.no_grad():
        for image in images:
            queries, patches, groups = lists_of_tokens(vit, image, 0.75, 1, 3)
            found = vit(image[None])
            torch.testing.assert_close(found[0][0], queries, atol=2e-4, rtol=1e-4)
            found = found[1][0].flatten(1).T
            torch.testing.assert_close(found, patches, atol=2e-4, rtol=1e-4)
            assert len(groups) < vit.grid[0] * vit.grid[1]
    sizes = {len(group) for group in groups}
    assert sizes - {1, 4}, 'the global merge has joined nothing'


@pytest.mark.parametrize('policy', POLICIES)
def test_without_a_merge_all_bits_are_the_plain_models(tiny, images, policy):
    method = dict(type='eomt_mm.ALGM', threshold=1.0, global_block=None)
    for arch in ('dinov2', *ROTARY):
        vit = tiny(method | dict(policy=policy), arch=arch)
        plain = tiny(arch=arch)
        with torch.no_grad():
            for found, expected in zip(vit(images), plain(images), strict=True):
                if policy == 'image':  # batches of one: sums in another order
                    torch.testing.assert_close(found, expected)
                else:
                    assert torch.equal(found, expected)


def test_weights_and_their_names_are_the_plain_models(tiny, images):
    plain, vit = tiny(), tiny(ALGM_MID)
    assert vit.state_dict().keys() == plain.state_dict().keys()
    vit.load_state_dict(plain.state_dict())
    with torch.no_grad():
        merged, expected = vit(images), plain(images)
        assert not torch.allclose(merged[0], expected[0], atol=1e-3)
        vit.token_merging = None  # as if it had never been there
        for found, value in zip(vit(images), expected, strict=True):
            assert torch.equal(found, value)


@pytest.mark.parametrize('policy', POLICIES)
def test_a_batch_of_identical_images_equals_one(tiny, images, policy):
    vit = tiny(ALGM_MID | dict(policy=policy))
    with torch.no_grad():
        alone = vit(images[1:2])
        batch = vit(images[1:2].expand(3, -1, -1, -1))
    for one, many in zip(alone, batch, strict=True):
        torch.testing.assert_close(many, one.expand_as(many), atol=1e-5, rtol=1e-5)


def lengths(vit, images):
    """Tokens of every image after the last merge."""
    found = {}
    with torch.no_grad():
        for group in vit.merged_groups(images, vit.depth - vit.num_blocks):
            members = range(len(images)) if group.images is None else group.images
            if group.source is None:
                found.update(dict.fromkeys(members, 64))
                continue
            assert (group.sizes.sum(1) == 64).all()
            for image, source in zip(members, group.source, strict=True):
                found[image] = len(source.unique())
                assert source.max() == found[image] - 1
    return [found[i] for i in range(len(images))]


def test_policies(tiny, images):
    """Local merging alone: every image on its own, all like the busiest, or between."""
    method = dict(type='eomt_mm.ALGM', threshold=0.75, global_block=None)
    alone = lengths(tiny(method | dict(policy='image')), images)
    assert alone == sorted(alone) and len(set(alone)) > 2
    assert lengths(tiny(method | dict(policy='min')), images) == [max(alone)] * 4
    between = lengths(tiny(method | dict(policy='group', max_groups=2)), images)
    assert sum(alone) < sum(between) < 4 * max(alone)
    assert len(set(between)) == 2
    for own, grouped in zip(alone, between, strict=True):
        assert grouped >= own


@pytest.mark.parametrize('arch', ['dinov2', *ROTARY])
def test_images_alone_in_their_groups_do_not_see_each_other(tiny, images, arch):
    vit = tiny(ALGM_MID | dict(policy='image'), arch=arch)
    with torch.no_grad():
        batch = vit(images)
        for i in range(len(images)):
            for one, many in zip(vit(images[i : i + 1]), batch, strict=True):
                torch.testing.assert_close(many[i], one[0], atol=1e-4, rtol=1e-4)


def test_results_come_back_in_the_order_of_the_batch(tiny, images):
    vit = tiny(ALGM_MID | dict(policy='group', max_groups=3))
    order = [2, 0, 3, 1]
    with torch.no_grad():
        straight, mixed = vit(images), vit(images[order])
    for one, other in zip(straight, mixed, strict=True):
        torch.testing.assert_close(one[order], other, atol=1e-4, rtol=1e-4)


def test_prefix_and_queries_are_never_merged(tiny, images):
    vit = tiny(ALGM_MID)
    seen = {}

    def watch(name):
        return lambda _, args: seen.setdefault(name, []).append(args[0])

    vit.blocks[0].norm2.register_forward_pre_hook(watch('first'))
    vit.blocks[3].norm1.register_forward_pre_hook(watch('queries'))
    with torch.no_grad():
        vit(images[:2])
        vit.token_merging = None
        vit(images[:2])
    merged, plain = seen['first']
    assert merged.shape[1] < plain.shape[1] == 5 + 64
    assert torch.equal(merged[:, :5], plain[:, :5])
    merged, _ = seen['queries']
    assert torch.equal(merged[:, :3], vit.queries.expand(2, -1, -1))


@pytest.mark.parametrize(
    'method',
    [
        dict(type='eomt_mm.ALGM', threshold=0.999, global_block=None),
        dict(type='eomt_mm.ToMe', r=16, blocks=[1]),
    ],
)
def test_merging_equal_tokens_changes_nothing_with_proportional_attention(tiny, method):
    """Even in the queries: a merged token weighs as much as its parts."""
    method = method | dict(proportional_attention=True)
    torch.manual_seed(0)
    coarse = torch.randn(2, 3, 4, 4, 8, 8)
    # Every 2 x 2 window of patches repeats one patch.
    image = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    image = image.permute(0, 1, 2, 4, 3, 5).reshape(2, 3, 64, 64)
    vit = tiny(method)
    torch.nn.init.zeros_(vit.pos_embed)
    with torch.no_grad():
        assert max(lengths(vit, image)) <= 48
        merged = vit(image)
        vit.token_merging.proportional_attention = False
        unweighted = vit(image)
        vit.token_merging = None
        plain = vit(image)
    for found, expected in zip(merged, plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (unweighted[0] - plain[0]).abs().max() > 1e-2


def test_rotary_codes_follow_the_merged_tokens(tiny, images):
    """All windows of DINOv3 merged: a coarser grid with its own codes."""
    method = dict(type='eomt_mm.ALGM', threshold=-1, global_block=None)
    vit = tiny(method, arch='dinov3')
    coarse = tiny(arch='dinov3', patch_size=16).rotary_codes()
    with torch.no_grad():
        x, block = vit.embed(images), vit.blocks[0]
        x = x + block.gamma_1 * block.attn(block.norm1(x), vit.rotary_codes())
        prefix, patches = x[:, :5], x[:, 5:].transpose(1, 2).unflatten(2, (8, 8))
        x = torch.cat((prefix, F.avg_pool2d(patches, 2).flatten(2).mT), dim=1)
        x = x + block.gamma_2 * block.mlp(block.norm2(x))
        for block in vit.blocks[1:3]:
            x = block(x, coarse)
        x = torch.cat((vit.queries.expand(4, -1, -1), x), dim=1)
        for block in vit.blocks[3:]:
            x = block(x, coarse)
        x = vit.norm(x)
        patches = x[:, 8:].mT.unflatten(2, (4, 4))
        patches = patches.repeat_interleave(2, 2).repeat_interleave(2, 3)
        found = vit(images)
    torch.testing.assert_close(found[0], x[:, :3], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], patches, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize('arch', ['dinov2', *ROTARY])
def test_tome_merges_in_every_block(tiny, images, arch):
    vit = tiny(dict(type='eomt_mm.ToMe', r=6), arch=arch)
    assert lengths(vit, images) == [64 - 3 * 6] * 4
    with torch.no_grad():
        queries, patches = vit(images)
    assert queries.shape == (4, 3, 32) and patches.shape == (4, 32, 8, 8)
    assert queries.isfinite().all() and patches.isfinite().all()


@pytest.mark.parametrize('policy', POLICIES)
@pytest.mark.parametrize('proportional', [False, True])
def test_autocast(tiny, images, policy, proportional):
    method = ALGM_MID | dict(policy=policy, proportional_attention=proportional)
    vit = tiny(method, arch='dinov3')
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        queries, patches = vit(images)
    assert queries.isfinite().all() and patches.isfinite().all()


@pytest.mark.parametrize(
    ('method', 'message'),
    [
        (dict(threshold=1.2), r'1\.2.*\[-1, 1\]'),
        (dict(threshold=-1.01), r'\[-1, 1\]'),
        (dict(threshold='high'), "'high'"),
        (dict(), 'None, expected a number'),
        (dict(threshold=0.9, global_block=4), r'blocks \[1, 4\].*1 to 3 of 5'),
        (dict(threshold=0.9, local_block=0), 'local_block is 0'),
        (dict(threshold=0.9, local_block=True), 'local_block is True'),
        (dict(threshold=0.9, local_block=3, global_block=2), 'rising order'),
        (dict(threshold=0.9, policy='max'), "'max'.*min"),
        (dict(threshold=0.9, policy='group', max_groups=0), 'max_groups is 0'),
        (dict(threshold=0.9, window=1), 'window is 1'),
        (dict(threshold=0.9, window=9), '8 x 8'),
        (dict(threshold=0.9, global_block='last'), "global_block is 'last'"),
        (dict(threshold=0.9, window=2.5), 'window is 2.5'),
        (dict(threshold=0.9, window='two'), "window is 'two'"),
        (dict(threshold=0.9, window=None), 'window is None'),
        (dict(threshold=0.9, max_groups=None), 'max_groups is None'),
        (dict(threshold=0.9, max_groups='4'), "max_groups is '4'"),
        (dict(threshold=0.9, proportional_attention='no'), "'no', expected True"),
        (dict(keep=('a', 'b')), 'two shares'),
        (dict(keep=(None, 0.5)), 'two shares'),
        (dict(threshold=0.9, calibration='a.json'), "threshold='auto' reads it"),
        (dict(threshold=5, local_block=None), '5 and .*local_block is None'),
        (dict(threshold='auto', local_block=None), 'local_block is None'),
        (dict(keep=(0.4, 0.5), local_block=None), 'local_block is None'),
        (dict(keep=(0.4, 0.5), global_block=None), 'global_block is None'),
        (dict(threshold=0.9, local_block=3), "global_block is 'auto'.*local_block 3"),
        (dict(type='eomt_mm.Algm', threshold=0.9), "Algm.*'eomt_mm.ALGM'"),
        (dict(type='eomt_mm.MaskHead'), 'not a method of token merging'),
        (dict(treshold=0.9), "'treshold'; its options are threshold, calibration"),
        (dict(type='eomt_mm.ToMe'), "ToMe missing a required argument: 'r'"),
        (dict(type='eomt_mm.ToMe', r=2, threshold=0.9), "'threshold'.*_delete_=True"),
        (dict(type='eomt_mm.ToMe', r=True), 'r is True'),
        (dict(type='eomt_mm.ToMe', r=2, blocks=2), 'blocks is 2'),
        (dict(type='eomt_mm.ToMe', r=2, blocks=[True, 2]), 'blocks is True'),
        (dict(keep=(0.2, 0.5)), r'0\.25'),
        (dict(keep=0.4), 'two shares'),
        (dict(keep=(0.4, 0.5), threshold=0.9), 'one of them'),
        (dict(type='eomt_mm.ToMe', r=0), 'r is 0'),
        (dict(type='eomt_mm.ToMe', r=2.5), 'r is 2.5'),
        (dict(type='eomt_mm.ToMe', r=2, blocks=[2, 4]), '1 to 3'),
    ],
)
def test_what_has_no_meaning_is_refused(tiny, method, message):
    with pytest.raises(UserError, match=message):
        tiny(dict(type='eomt_mm.ALGM') | method)


@pytest.mark.parametrize('options', ['eomt_mm.ALGM', dict(threshold=0.9)])
def test_a_method_has_a_type(tiny, options):
    with pytest.raises(UserError, match=r'expected a dict.*type=eomt_mm\.ALGM'):
        tiny(options)


def test_only_fixed_numbers_of_tokens_are_compiled(tiny, head):
    with pytest.raises(UserError, match='leave out --compile'):
        FastNetwork(Network(tiny(ALGM_MID), head), compiled=True)
    FastNetwork(Network(tiny(ALGM_MID), head))
    # Nothing is compiled before the first call.
    FastNetwork(Network(tiny(dict(type='eomt_mm.ToMe', r=6)), head), compiled=True)
    fixed = dict(type='eomt_mm.ALGM', keep=(0.4, 0.5), global_block=3)
    FastNetwork(Network(tiny(fixed), head), compiled=True)


@pytest.mark.parametrize(
    'method',
    [
        dict(type='eomt_mm.ToMe', r=6),
        dict(type='eomt_mm.ALGM', keep=(0.4, 0.5), global_block=3),
    ],
    ids=['tome', 'algm'],
)
def test_fixed_numbers_of_tokens_are_one_graph(tiny, images, method):
    vit = tiny(method)
    compiled = torch.compile(vit, backend='eager', fullgraph=True)
    with torch.no_grad():
        for found, expected in zip(compiled(images), vit(images), strict=True):
            torch.testing.assert_close(found, expected)


def test_training_and_masks_are_refused(tiny, images, head):
    with pytest.raises(UserError, match='mask_probs'):
        tiny(ALGM_MID, mask_probs=[0.5, 0.0])
    vit = tiny(ALGM_MID)
    vit.mask_probs = [0.0, 0.5]
    with pytest.raises(UserError, match='token_merging=None'):
        Network(vit, head)(images)
    vit.mask_probs = [0.0, 0.0]
    Network(vit, head)(images)
    vit.train()
    with pytest.raises(UserError, match='training mode'):
        vit(images)
    with pytest.raises(UserError, match='training mode'):
        vit.forward_masked(images, head)


@pytest.mark.parametrize(
    ('depth', 'num_blocks', 'blocks'),
    [
        (12, 3, (1, 5)),
        (24, 4, (1, 7)),
        (40, 5, (1, 12)),
        (5, 2, (1, 2)),
        (4, 2, (1, 2)),
    ],
)
def test_default_blocks(depth, num_blocks, blocks):
    method = ALGM(threshold=0.9)
    method.bind(depth, depth - num_blocks, (8, 8))
    assert method.blocks == blocks


def test_the_global_merge_comes_after_a_late_local_one():
    method = ALGM(threshold=0.9, local_block=3)
    method.bind(5, 4, (8, 8))
    assert method.blocks == (3, 4)


def test_images_of_another_size_are_refused(tiny):
    with pytest.raises(UserError, match='64 x 64'):
        tiny(ALGM_MID)(torch.zeros(1, 3, 32, 32))


def test_the_method_in_the_documentation(tiny, images):
    text = (Path(__file__).parents[3] / 'docs/token_merging.md').read_text()
    (code,) = re.findall(r'```python\n(from .*?)```', text, re.S)
    exec(code, {})  # registers it
    method = dict(type='eomt_mm.MostSimilar', similarity=0.8, policy='image')
    found = lengths(tiny(method), images)
    assert found[0] < found[1] <= 64


def test_the_option_is_of_the_backbone():
    with torch.device('meta'):
        vit = MODELS.build(
            dict(
                type='eomt_mm.QueryViT',
                arch='vit_large_patch14_reg4_dinov2',
                img_size=512,
                pretrained=False,
                token_merging=dict(type='eomt_mm.ALGM', threshold=0.95),
            )
        )
    assert isinstance(vit.token_merging, ALGM) and vit.token_merging.blocks == (1, 7)


class WatchedALGM(ALGM):
    """Keeps the keys that each merge point offers."""

    def propose(self, point):
        self.seen = [*getattr(self, 'seen', []), point.keys]
        return super().propose(point)


def test_keys_are_of_the_patches_or_absent(tiny, images):
    """Proportional attention computes keys that no method has asked for."""
    vit = tiny()
    method = WatchedALGM(0.75, global_block=3, proportional_attention=True)
    vit.set_merging(method)
    with torch.no_grad():
        vit(images)
        assert len(method.seen) >= 2 and all(keys is None for keys in method.seen)
        method.uses_keys, method.seen = True, []
        vit(images[:1])
    local, joint = method.seen
    assert local.shape == (1, 64, 8) and joint.shape[1] < 64


def test_a_vit_without_queries_does_not_drop_its_merging():
    options = dict(type='eomt_mm.QueryViT', arch='vit_tiny_patch16_224', img_size=64)
    options |= dict(num_queries=0, pretrained=False, timm_args=dict(depth=1))
    with pytest.raises(UserError, match='num_queries is 0.*token_merging=None'):
        MODELS.build(options | dict(token_merging=ALGM_MID))
    MODELS.build(options)
