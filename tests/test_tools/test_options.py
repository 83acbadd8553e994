"""A new data root reaches every dataset and evaluator that used the old one."""

import pytest
from mmengine.config import Config

from eomt_mm.cli.options import override
from eomt_mm.errors import UserError


def config(**extra):
    coco = dict(type='C', data_root='data/coco/', ann_file='a.json')
    other = dict(type='C', data_root='data/coco2')
    return Config(
        dict(
            train_dataloader=dict(
                dataset=dict(type='ConcatDataset', datasets=[coco, other])
            ),
            val_dataloader=dict(dataset=dict(coco)),
            val_evaluator=[dict(ann_file='data/coco/annotations/a.json')],
            **extra,
        )
    )


def test_reaches_datasets_and_evaluators():
    cfg = config(data_root='data/coco/')
    override(cfg, dict(data_root='/d/c'))
    assert cfg.data_root == '/d/c'
    first, second = cfg.train_dataloader.dataset.datasets
    assert first.data_root == '/d/c'
    assert first.ann_file == 'a.json'
    assert second.data_root == 'data/coco2'  # another root, not a directory below
    assert cfg.val_dataloader.dataset.data_root == '/d/c'
    assert cfg.val_evaluator[0].ann_file == '/d/c/annotations/a.json'


def test_an_explicit_option_wins():
    cfg = config(data_root='data/coco/')
    key = 'val_dataloader.dataset.data_root'
    override(cfg, {'data_root': '/d/c', key: '/e'})
    assert cfg.val_dataloader.dataset.data_root == '/e'


def test_without_the_variable_the_only_root_is_meant():
    cfg = config()
    with pytest.raises(UserError, match='data/coco2'):
        override(cfg, dict(data_root='/d'))
    del cfg.train_dataloader.dataset.datasets[1]
    override(cfg, dict(data_root='/d'))
    assert cfg.train_dataloader.dataset.datasets[0].data_root == '/d'
