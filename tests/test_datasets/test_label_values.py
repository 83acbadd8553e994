"""Values of label maps are checked before they are cast, and looked at before a run."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from eomt_mm.cli import check_data
from eomt_mm.datasets.semantic_loading import LoadSemanticAnnotations, read_label_map
from eomt_mm.errors import UserError


def save(labels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)
    return str(path)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32, np.float32, bool])
def test_whole_numbers_of_a_byte_are_read_at_any_depth(tmp_path, dtype):
    labels = np.array([[0, 1], [1, 0]] if dtype is bool else [[0, 1], [2, 255]])
    path = save(labels.astype(dtype), tmp_path / 'a.tif')
    assert read_label_map(path).tolist() == labels.tolist()


@pytest.mark.parametrize(
    ('dtype', 'value'),
    [
        (np.uint16, 258),
        (np.int32, -1),
        (np.int32, 70000),
        (np.float32, 0.5),
        (np.float32, np.nan),
    ],
)
def test_other_values_are_one_line(tmp_path, dtype, value):
    path = save(np.array([[0, 1], [value, 1]], dtype), tmp_path / 'a.tif')
    with pytest.raises(UserError, match=f'the value {value} .1 of 4 pixels'):
        read_label_map(path)


@pytest.mark.parametrize('reduces', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 1, 1: 0, 2: 255}])
def test_labels_are_mmsegs(tmp_path, reduces, label_map):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = save(labels, tmp_path / 'a.png')
    found = []
    for kind in (LoadAnnotations, LoadSemanticAnnotations):
        results = dict(
            seg_map_path=path,
            seg_fields=[],
            reduce_zero_label=reduces,
            label_map=label_map,
            img=np.zeros((16, 16, 3), np.uint8),
            ori_shape=(16, 16),
        )
        found.append(kind()(results)['gt_seg_map'])
    np.testing.assert_array_equal(*found)
    assert found[1].dtype == np.uint8


@pytest.fixture
def check(tmp_path):
    """`check(labels, **dataset)`: the preflight of a data set with these label maps."""

    def run(labels, suffix='.png', **options):
        for i, values in enumerate(labels):
            save(np.zeros((4, 4, 3), np.uint8), tmp_path / f'photos/{i}.png')
            save(np.array(values, np.uint8), tmp_path / f'labels/{i}{suffix}')
        dataset = dict(
            type='eomt_mm.SegDataset',
            data_root=str(tmp_path),
            data_prefix=dict(img_path='photos', seg_map_path='labels'),
            img_suffix='.png',
            pipeline=[dict(type='eomt_mm.LoadSemanticAnnotations')],
            **options,
        )
        loader = dict(dataset=dataset)
        check_data(
            Config(dict(default_scope='mmseg', train_dataloader=loader)), 'train'
        )

    return run


def test_one_class_with_reduce_zero_label(check, capsys):
    labels = [[[0, 0], [0, 1]]] * 3
    check(labels, metainfo=dict(classes=('crack',)), reduce_zero_label=True)
    said = capsys.readouterr().out
    assert "the one class 'crack': label 0 never occurs" in said
    assert '9 of 12 pixels (75%)' in said
    check(labels, metainfo=dict(classes=('wall', 'crack')))
    assert 'never occurs' not in capsys.readouterr().out


def test_a_label_of_no_class(check):
    with pytest.raises(UserError, match=r'label 7 in .*0\.png: expected 0 to 1 or 255'):
        check([[[0, 7]]], metainfo=dict(classes=('a', 'b')))


def test_missing_label_maps(check):
    with pytest.raises(UserError, match='2 of 2 label maps of the train dataset'):
        check([[[0]]] * 2, suffix='.tif', metainfo=dict(classes=('a',)))


@pytest.mark.parametrize(
    ('content', 'fault'),
    [(b'', 'the file is empty'), (b'labels', 'not an image'), (None, 'truncated')],
)
def test_damaged_label_maps(check, tmp_path, monkeypatch, content, fault):
    """They are named before a run, or left to `skip_unreadable`."""

    plain = save

    def damage(labels, path):
        path = plain(labels, path)
        if 'labels/1' in path:
            whole = Path(path).read_bytes()
            Path(path).write_bytes(whole[:90] if content is None else content)

    monkeypatch.setitem(globals(), 'save', damage)
    labels = np.random.default_rng(0).integers(0, 2, (3, 40, 40))
    with pytest.raises(UserError, match=rf'cannot read .*labels/1\.png: .*{fault}'):
        check(labels, metainfo=dict(classes=('a', 'b')))
    check(labels, metainfo=dict(classes=('a', 'b')), skip_unreadable=True)


@pytest.fixture
def cityscapes(tmp_path):
    """Label maps as they are released."""
    name = 'train/ulm/ulm_000000_000000'
    save(
        np.zeros((4, 8, 3), np.uint8), tmp_path / f'leftImg8bit/{name}_leftImg8bit.png'
    )
    labels = np.full((4, 8), 26, np.uint8)
    save(labels, tmp_path / f'gtFine/{name}_gtFine_labelIds.png')
    return dict(
        type='eomt_mm.CityscapesDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='leftImg8bit/train', seg_map_path='gtFine/train'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='eomt_mm.LoadSemanticAnnotations'),
        ],
    )


@pytest.mark.parametrize('options', [{}, dict(seg_map_suffix='_gtFine_labelIds.png')])
def test_cityscapes_as_released_says_what_to_run(cityscapes, options):
    loader = dict(dataset={**cityscapes, **options})
    cfg = Config(dict(default_scope='mmseg', train_dataloader=loader))
    with pytest.raises(UserError, match='CITYSCAPES_DATASET=.* csCreateTrainIdLabel'):
        check_data(cfg, 'train')


def test_cityscapes_as_released_in_a_run_without_the_tools(cityscapes):
    init_default_scope('mmseg')
    with pytest.raises(UserError, match='no such file; .*csCreateTrainIdLabelImgs'):
        DATASETS.build(cityscapes)[0]


def test_classes_of_an_image_are_those_of_its_label_map(cityscapes):
    """ClassBalancedDataset asks for them."""
    init_default_scope('mmseg')
    dataset = DATASETS.build({**cityscapes, 'seg_map_suffix': '_gtFine_labelIds.png'})
    assert dataset.get_cat_ids(0) == [26]
    dataset.pipeline.transforms.pop()
    with pytest.raises(UserError, match='loads no label map'):
        dataset.get_cat_ids(0)
