"""What MM's loaders and inferencers take for granted is looked at before."""

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from eomt_mm import cli
from eomt_mm.engine.latest_checkpoint import latest_checkpoint
from eomt_mm.errors import UserError

ONES = torch.ones(1)


@pytest.mark.parametrize(
    'change',
    (
        dict(state_dict=None),
        dict(state_dict=[ONES]),
        dict(state_dict={1: ONES}),
        dict(meta=None),
        dict(meta='x'),
        dict(meta=dict(dataset_meta=None)),
        dict(meta=dict(dataset_meta={1: 2})),
        dict(meta=dict(CLASSES=5)),
        *(
            dict(meta=dict(dataset_meta=dict(classes=classes, palette=palette)))
            for classes, palette in (
                (5, None),
                ('ade20k', None),
                (['a', 1], None),
                (ONES, ONES),
                (['a'], 3),
                (['a'], 'x'),
                (['a'], [['b']]),
                (['a'], [[1, 2]]),
                (['a'], [[1, 2, 300]]),
                (['a'], [[1, 2, float('nan')]]),
            )
        ),
    ),
)
def test_odd_content_is_one_line(tmp_path, change):
    torch.save({'state_dict': dict(a=ONES), **change}, tmp_path / 'file.pth')
    with pytest.raises(UserError, match='not a checkpoint of MMEngine'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'))


@pytest.mark.parametrize(
    'palette',
    (
        None,
        'random',
        [],
        [(1, 2, 3)],
        [[1.0, 2.5, 3]],
        np.array([[1, 2, 3]], np.uint8),
        [np.array([1, 2, 3])],
    ),
)
def test_what_data_sets_say_is_read(tmp_path, palette):
    meta = dict(dataset_meta=dict(classes=('a',), palette=palette))
    torch.save(dict(state_dict=dict(a=ONES), meta=meta), tmp_path / 'file.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'))['meta']


@pytest.mark.parametrize('state', (None, [], {}, {1: ONES}))
def test_odd_weights_are_passed_over(tmp_path, state):
    content = dict(meta=dict(iter=1), optimizer={}, message_hub={}, state_dict=state)
    torch.save(content, tmp_path / 'iter_1.pth')
    path, passed_over = latest_checkpoint(tmp_path)
    assert path is None and len(passed_over) == 1


def test_names_do_not_steer_the_terminal(capsys):
    def main(argv):
        raise UserError('lacks \x1b[2Jweight\x9b1m\u202e\n')

    assert cli.run(main) == 2
    assert capsys.readouterr().err == 'error: lacks \\x1b[2Jweight\\x9b1m\\u202e\n'
