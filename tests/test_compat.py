"""Stock and maintained OpenMMLab: versions, mixtures, attributes."""

from types import SimpleNamespace

import pytest

from eomt_mm import compat
from eomt_mm.compat import StandingIterator
from eomt_mm.errors import UserError


@pytest.fixture
def install(monkeypatch):
    def pretend(**versions):
        found = {name.replace('_', '-'): value for name, value in versions.items()}
        monkeypatch.setattr(compat, 'installed_version', found.get)

    return pretend


def test_warning_knows_both_names(install):
    install(mmcv='2.2.0', onedl_mmcv='2.4.0', torch='2.11.3')
    assert compat.untested_versions() == [
        'mmcv 2.2.0 (tested: 2.1)',
        'onedl-mmcv 2.4.0 (tested: 2.3)',
    ]


def test_one_stack_at_a_time(install):
    for stack in ('', 'onedl_'):
        install(**{f'{stack}mmcv': '2.1.0', f'{stack}mmengine': '0.10.7'})
        compat.refuse_mixed_stacks()
    install(mmcv='2.1.0', onedl_mmcv='2.3.6')
    with pytest.raises(UserError, match='mmcv 2.1.0 and onedl-mmcv 2.3.6 .*new env'):
        compat.refuse_mixed_stacks()


@pytest.mark.parametrize('name', ['channel_conversion', '_channel_conversion'])
@pytest.mark.parametrize('flips', [True, False])
def test_channels(name, flips):
    assert compat.flips_channels(SimpleNamespace(**{name: flips})) is flips


def test_either_loop_finds_the_next_batch():
    stock = StandingIterator(iter('ab'), iter(()), done=3)
    assert [next(stock) for _ in range(5)] == [None, None, None, 'a', 'b']
    own = SimpleNamespace(skip_iter=None)
    fork = StandingIterator(iter('ab'), own, done=3)
    fork.skip_iter(3)
    assert [*fork] == ['a', 'b']
