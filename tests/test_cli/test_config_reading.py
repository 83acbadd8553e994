"""A config is read however it is written: wrappers, classes as types, name files."""

import pytest
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs

from eomt_mm.cli import config_reading as reading
from eomt_mm.cli import read_config
from eomt_mm.cli.filling_in import fill_in
from eomt_mm.errors import UserError

LEAF = dict(type='BaseSegDataset', pipeline=[dict(type='mmseg.LoadAnnotations')])


def wrapped(*leaves):
    """Every wrapper, nested."""
    repeated = dict(type='RepeatDataset', times=2, dataset=leaves[0])
    balanced = dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=repeated)
    return dict(type='ConcatDataset', datasets=[balanced, *leaves[1:]])


@pytest.mark.parametrize(
    'kind', ['LoadAnnotations', 'mmseg.LoadAnnotations', LoadAnnotations]
)
def test_a_type_is_a_name_or_a_class(kind):
    assert reading.type_name(dict(type=kind)) == 'LoadAnnotations'
    assert reading.loads_labels(dict(type=kind))
    assert not reading.without_labels([dict(type=kind)])


def test_leaves_of_nested_wrappers():
    cfg = Config(dict(test_dataloader=dict(dataset=wrapped(LEAF, dict(LEAF, a=1)))))
    assert [leaf.get('a') for leaf in reading.leaves_of(cfg, 'test')] == [None, 1]
    assert reading.leaves_of(cfg, 'val') == []
    assert reading.type_name(reading.pipeline_of(cfg)[0]) == 'LoadAnnotations'


def test_another_pipeline_reaches_every_leaf_of_a_copy():
    dataset = wrapped(LEAF, dict(LEAF))
    changed = reading.with_pipeline(dataset, [])
    assert [leaf['pipeline'] for leaf in reading.leaves(changed)] == [[], []]
    assert all(leaf['pipeline'] for leaf in reading.leaves(dataset))


@pytest.mark.parametrize(
    'evaluator', [dict(type='A'), [dict(type='A')], dict(metrics=dict(type='A'))]
)
def test_evaluators(evaluator):
    assert reading.metrics_of(Config(dict(test_evaluator=evaluator)), 'test') == [
        dict(type='A')
    ]


def test_scope_of_a_python_style_config(tmp_path):
    path = tmp_path / 'lazy.py'
    path.write_text(
        'from mmseg.datasets.transforms import PackSegInputs\n'
        'default_scope = None\n'
        'test_dataloader = dict(dataset=dict(pipeline=[dict(type=PackSegInputs)]))\n'
    )
    cfg = read_config(str(path))
    assert cfg.default_scope == 'mmseg'
    assert cfg.test_dataloader.dataset.pipeline[0].type is PackSegInputs


def test_classes_in_a_file(tmp_path):
    path = tmp_path / 'names.txt'
    path.write_text('cat\ndog\n')
    dataset = dict(type=BaseSegDataset, metainfo=dict(classes=str(path)))
    assert reading.metainfo_of(dataset, 'mmseg')['classes'] == ['cat', 'dog']


def test_the_forgotten_comma_is_named():
    dataset = dict(type='BaseSegDataset', metainfo=dict(classes=('cat')))  # noqa: UP034
    with pytest.raises(UserError, match=r"needs a comma: \('cat',\)"):
        reading.metainfo_of(dataset, 'mmseg')


def filled(dataset, **extra):
    loader = dict(num_workers=0, persistent_workers=True, dataset=dataset)
    cfg = Config(dict(default_scope='mmseg', test_dataloader=loader, **extra))
    fill_in(cfg)
    return cfg


def test_no_workers_do_not_persist():
    assert filled(LEAF).test_dataloader.persistent_workers is False


def test_each_image_is_tested_once():
    dataset = filled(wrapped(LEAF, LEAF)).test_dataloader.dataset
    assert [child.type for child in dataset.datasets] == ['BaseSegDataset'] * 2


@pytest.mark.parametrize('palette', [None, [], [[1, 2, 3]]])
def test_colours_for_classes_without(palette):
    metainfo = dict(classes=('a', 'b', 'c'))
    metainfo |= {} if palette is None else dict(palette=palette)
    dataset = filled(dict(LEAF, metainfo=metainfo)).test_dataloader.dataset
    assert len({*map(tuple, dataset.metainfo.palette)}) == 3


def test_a_training_by_epochs_is_followed():
    cfg = Config(
        dict(
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=3, max_iters=90),
            train_dataloader=dict(sampler=dict(type='InfiniteSampler', shuffle=True)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2000)
            ),
            log_processor=dict(by_epoch=False),
        )
    )
    fill_in(cfg)
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=3)
    assert cfg.train_dataloader.sampler == dict(type='DefaultSampler', shuffle=True)
    assert cfg.default_hooks.checkpoint.by_epoch
    assert cfg.default_hooks.checkpoint.interval == 1
    assert cfg.log_processor.by_epoch
