"""Data checks on datasets with an annotation file, wrapped ones and remote ones."""

import pytest
import torch
from mmengine.config import Config

from eomt_mm.cli import check_checkpoint, check_data, check_loops
from eomt_mm.errors import UserError


def coco(root, **extra):
    prefix = dict(img='val/', seg='annotations/panoptic/')
    dataset = dict(data_root=str(root), ann_file='annotations/a.json', **extra)
    return dict(type='CocoPanopticDataset', data_prefix=prefix, **dataset)


def config(dataset, **extra):
    dataset = dict(type='RepeatDataset', dataset=dict(dataset), times=2)
    return Config(dict(train_dataloader=dict(dataset=dataset), **extra))


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'val').mkdir()
    (tmp_path / 'annotations' / 'panoptic').mkdir(parents=True)
    (tmp_path / 'annotations' / 'a.json').touch()
    return tmp_path


LOADS = dict(pipeline=[dict(type='LoadPanopticAnnotations')])


def test_complete(root):
    loads = config(coco(root, **LOADS), default_scope='mmdet')
    check_data(loads, 'train', 'val')


@pytest.mark.parametrize(
    'missing, named',
    [
        ('annotations/a.json', 'ann_file'),
        ('val', 'data_prefix.img'),
        ('annotations/panoptic', 'data_prefix.seg'),
    ],
)
def test_names_what_is_missing(root, missing, named):
    (root / missing).rename(root / 'elsewhere')
    with pytest.raises(UserError) as caught:
        check_data(config(coco(root, **LOADS)), 'train')
    assert f'train_dataloader {named}' in str(caught.value)
    assert str(root / missing) in str(caught.value)


def test_labels_that_nothing_loads_may_be_missing(root):
    (root / 'annotations/panoptic').rmdir()
    check_data(config(coco(root, pipeline=[dict(type='LoadImageFromFile')])), 'train')


@pytest.mark.parametrize(
    ('things', 'stuff', 'panoptic_on', 'fault'),
    [
        (80, 53, True, None),
        (80, 0, False, None),
        (2, 131, True, 'num_things_classes=2, .* has 80'),
        (80, 50, True, 'num_stuff_classes=50, .* has 53'),
    ],
)
def test_classes_of_head_and_dataset(root, things, stuff, panoptic_on, fault):
    model = dict(
        panoptic_head=dict(num_things_classes=things, num_stuff_classes=stuff),
        test_cfg=dict(panoptic_on=panoptic_on),
    )
    cfg = config(coco(root), default_scope='mmdet', model=model)
    if fault is None:
        check_data(cfg, 'train')
        return
    with pytest.raises(UserError, match=fault):
        check_data(cfg, 'train')


def test_evaluator_file(root):
    evaluator = dict(type='CocoPanopticMetric', ann_file=str(root / 'b.json'))
    with pytest.raises(UserError, match='train_evaluator ann_file'):
        check_data(config(coco(root), train_evaluator=evaluator), 'train')


def test_remote_data_are_left_alone():
    remote = coco('s3://bucket', backend_args=dict(backend='petrel'))
    check_data(config(remote), 'train')


@pytest.fixture
def damaged(tmp_path):
    path = tmp_path / 'damaged.pth'
    torch.save(dict(weight=torch.ones(1000)), path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(10).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    return str(path)


def test_checksums_are_rank_0s_affair(damaged, monkeypatch):
    with pytest.raises(UserError, match='wrong checksum'):
        check_checkpoint(damaged)
    monkeypatch.setenv('RANK', '1')
    check_checkpoint(damaged)


@pytest.mark.parametrize('head', ['decode_head', 'panoptic_head'])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_part_without_weights(tmp_path, head, prefix):
    """Half of what is tested would be random; a training may start from it."""
    path = str(tmp_path / 'half.pth')
    cfg = Config(dict(model={'backbone': dict(), head: dict(type='x')}))
    cfg.model.backbone.type = 'y'
    whole = {f'{prefix}{name}.weight': torch.ones(1) for name in ('backbone', head)}
    torch.save(whole, path)
    check_checkpoint(path, cfg=cfg)
    for name in ('backbone', head):
        torch.save({k: v for k, v in whole.items() if name not in k}, path)
        check_checkpoint(path)
        with pytest.raises(UserError, match=f'no weights of {name}, which would be r'):
            check_checkpoint(path, cfg=cfg)


def test_a_large_checkpoint_is_announced(tmp_path, monkeypatch, capsys):
    path = tmp_path / 'a.pth'
    torch.save(dict(weight=torch.ones(10)), path)
    check_checkpoint(str(path))
    assert capsys.readouterr().out == ''
    monkeypatch.setattr('eomt_mm.checkpoints.reading.LARGE', 100)
    check_checkpoint(str(path))
    assert capsys.readouterr().out == f'checking {path} (0.0 GB)\n'


METRIC = dict(type='eomt_mm.IoUMetric', iou_metrics=['mIoU'])
NO_METRIC = 'test_evaluator has no metric: set one'
NO_TYPE = 'test_evaluator has the metric .*: expected a dict with a type'


@pytest.mark.parametrize(
    ('evaluator', 'fault'),
    [
        (METRIC, None),
        ([METRIC, METRIC], None),
        (dict(type='Evaluator', metrics=[METRIC]), None),
        ([], NO_METRIC),
        ({}, NO_METRIC),
        (dict(type='Evaluator', metrics=[]), NO_METRIC),
        ([dict(metrics=[])], NO_METRIC),
        (dict(metrics=None), NO_TYPE),
        (dict(iou_metrics=['mIoU']), NO_TYPE),
        ([METRIC, {}], NO_TYPE),
        ([None], NO_TYPE),
        ('eomt_mm.IoUMetric', NO_TYPE),
    ],
)
def test_evaluators_that_score_nothing(evaluator, fault):
    """MMEngine tests, says nothing and ends with status 0."""
    part = dict(batch_size=1)
    cfg = Config(dict(test_dataloader=part, test_cfg={}, test_evaluator=evaluator))
    if fault is None:
        check_loops(cfg, 'test')
        return
    with pytest.raises(UserError, match=fault) as refused:
        check_loops(cfg, 'test')
    assert '\n' not in str(refused.value)
