"""A progress bar and what comes after it."""

import pytest

from eomt_mm import cli
from eomt_mm.errors import UserError


def test_steps_come_through(capsys):
    assert list(cli.track(iter('abc'), 3)) == ['a', 'b', 'c']
    # The bar itself goes to the stdout there was when MMEngine was imported.
    assert capsys.readouterr().out.endswith('\n')


@pytest.mark.parametrize('by', ['step', 'body'])
def test_an_error_stands_on_its_own_line(capfd, by):
    def steps():
        yield 1
        yield 2
        if by == 'step':
            raise UserError('image a.png is truncated')

    def main(argv):
        for step in cli.track(steps(), 5):
            if by == 'body' and step == 2:
                raise UserError('image a.png is truncated')

    assert cli.run(main) == 2
    out, err = capfd.readouterr()
    assert out.endswith('\n')
    assert err == 'error: image a.png is truncated\n'
