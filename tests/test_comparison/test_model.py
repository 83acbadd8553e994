"""Rows of a comparison: what a command line names, what is counted and timed."""

import pytest
import torch

from eomt_mm.comparison.model import Model, Timing, count, parse_words, prepare
from eomt_mm.errors import UserError

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
        (['x.pth'], 'stands behind no config'),
        (['a.py', 'x.pth', 'y.pth'], 'y.pth stands behind no config'),
        (['a/x.py', 'b/x.py'], 'x would stand in several rows: give them names'),
    ],
)
def test_words_that_make_no_rows(words, message):
    with pytest.raises(UserError, match=message):
        parse_words(words)


def test_a_reason_is_told_once():
    model = Model('a', 'a.py')
    model.remark('network', 'no operator')
    model.remark('speed', 'no operator')
    model.remark('score', 'no data')
    assert model.remarks == ['network: no operator', 'score: no data']


@pytest.mark.parametrize('config', [STEP5, STEP0])
def test_what_is_timed_is_what_is_counted(root, config):
    """At another size than the config's, too, and without any weights."""
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
