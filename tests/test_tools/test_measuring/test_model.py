"""Rows of a comparison: what a command line names, what is counted and timed."""

import pytest
import torch

from eomt_mm.errors import UserError
from measuring.comparison.model import Model, Timing, count, parse_words, prepare

STEP5 = 'configs/demo/ladder/step5_scenes_panoptic.py'
STEP0 = 'configs/demo/ladder/step0_scenes_panoptic.py'


def test_words():
    models = parse_words(
        ['a/x.py', 'x.pth', 'EoMT-S=a/y.py', 'mmdet::mask2former/m2f_r50.py', 'z.pth']
    )
    assert [(m.label, m.config, m.checkpoint) for m in models] == [
        ('x', 'a/x.py', 'x.pth'),
        ('EoMT-S', 'a/y.py', None),
        ('m2f_r50', 'mmdet::mask2former/m2f_r50.py', 'z.pth'),
    ]


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['x.pth'], 'does not follow a config'),
        (['a.py', 'x.pth', 'y.pth'], 'y.pth does not follow a config'),
        (['a/x.py', 'b/x.py'], 'x would stand in several rows: give them names'),
        (
            ['a.py', 'w/model.pt'],
            'w/model.pt is not a config, and checkpoints end in .pth',
        ),
        (['a.py', 'model.safetensors'], 'convert .* with tools/model_converters'),
        (['=a.py'], "'=a.py' lacks a name"),
        (['mmdet::'], "'mmdet::' lacks a name"),
        (['a='], "'a=' lacks a name"),
    ],
)
def test_words_that_make_no_rows(words, message):
    with pytest.raises(UserError, match=message):
        parse_words(words)


def test_a_file_with_an_equals_sign_is_not_cut(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'lr=1/c=2.py'
    path.parent.mkdir()
    path.touch()
    models = parse_words(['lr=1/c=2.py', 'a=b=lr=1/c=2.py', 'lr=3/other.py'])
    assert [(m.label, m.config) for m in models] == [
        ('c=2', 'lr=1/c=2.py'),
        ('a=b', 'lr=1/c=2.py'),
        ('lr', '3/other.py'),  # no file: as documented
    ]


def test_options_of_the_model_change_what_is_counted_and_timed(root):
    settings = {'model.backbone.num_queries': 7, 'data_root': '/nowhere'}
    model = Model('x', str(root / STEP5), settings=settings)
    plain = Model('y', str(root / STEP5))
    for row in (model, plain):
        count(row, None)
    # Three of 128 channels are gone.
    assert plain.parameters - model.parameters == 3 * 128
    work = prepare(model, Timing(None, 1, 'fp32', False, torch.device('cpu')))
    seen = []
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: seen.append(module)
    )
    try:
        work()
    finally:
        handle.remove()
    assert sum(p.numel() for p in seen[0].parameters()) == model.parameters
    assert model.read().data_root == plain.read().data_root != '/nowhere'
    assert model.read_for_test().data_root == '/nowhere'


def test_a_reason_is_told_once():
    model = Model('a', 'a.py')
    model.remark('network', 'no operator')
    model.remark('speed', 'no operator')
    model.remark('score', 'no data')
    assert model.remarks == ['network: no operator', 'score: no data']


@pytest.mark.parametrize('config', [STEP5, STEP0])
def test_what_is_timed_is_what_is_counted(root, config):
    """The size may differ from the config's, and no weights are needed."""
    model = Model('x', str(root / config))
    count(model, (96, 64))
    assert model.size == (96, 64)
    timing = Timing((96, 64), 2, 'fp32', False, torch.device('cpu'))
    seen = []
    handle = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: seen.append((module, args))
    )
    try:
        assert prepare(model, timing)() is None
    finally:
        handle.remove()
    network, (images, *_) = seen[0]
    assert images.shape == (2, 3, 96, 64)
    assert sum(p.numel() for p in network.parameters()) == model.parameters
    assert not network.training
