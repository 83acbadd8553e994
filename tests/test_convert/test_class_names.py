"""The class names of a `config.json` against those of a config."""

import json

import oracle
import pytest

from eomt_mm.convert.class_names import label_config, refuse_other_classes
from eomt_mm.errors import UserError

NAMES = ['wall', 'sky', 'tree-merged', 'Bed']


def check(labels, names=NAMES, beside=None, tmp='theirs'):
    beside = dict(id2label={str(i): x for i, x in enumerate(labels)}, **(beside or {}))
    return refuse_other_classes(beside, names, oracle.Path(tmp, 'model.st'), 'ours.py')


@pytest.mark.parametrize(
    'labels',
    [
        NAMES,
        ['Wall ', 'sky, heaven', 'tree merged', 'bed'],
        [f'LABEL_{i}' for i in range(4)],  # what transformers makes up
        ['wall'],  # for another number of classes: of another file
        [],
    ],
)
def test_nothing_to_tell(labels):
    assert check(labels) is None


def test_no_table():
    for table in (None, ['wall'], {'a': 'wall'}):
        beside = dict(id2label=table)
        assert refuse_other_classes(beside, NAMES, oracle.Path('x'), 'c') is None


@pytest.mark.parametrize(
    ('labels', 'first'),
    [
        (['sky', 'wall', 'tree-merged', 'bed'], "0 is 'sky' there and 'wall'"),
        (['wall', 'Bed', 'shrub', 'sky'], "1 is 'bed' there and 'sky'"),
    ],
)
def test_another_order_is_refused(labels, first):
    said = f'theirs/config.json has the classes in another order: class {first} in ours'
    with pytest.raises(UserError, match=said):
        check(labels)


def test_other_classes_are_refused():
    with pytest.raises(
        UserError, match="other classes: class 0 is 'cat' there .*--conf"
    ):
        check(['cat', 'dog', 'cow', 'bear'])


@pytest.mark.parametrize(
    'labels',
    [
        ['wall', 'sky', 'tree', 'bed'],
        # A name that the other list has elsewhere, for another thing.
        ['wall', 'sky', 'bed', 'bunk'],
    ],
)
def test_other_spellings_are_told(labels):
    assert 'names differ from those in config.json' in check(labels)


def convert(run_tool, tmp_path, labels, base='configs/demo/eomt_scenes_semantic.py'):
    classes = len(labels)
    reference = oracle.make_reference('gelu', classes, 640 if classes == 150 else 64)
    reference.save_pretrained(tmp_path / 'theirs')
    path = tmp_path / 'theirs/config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | label_config(labels)))
    config = oracle.write_config(tmp_path / 'config.py', 'gelu', base)
    ours = tmp_path / 'ours.pth'
    run_tool('model_converters/eomt2mm', tmp_path / 'theirs', ours, '--config', config)
    return ours


def test_the_tool_compares(run_tool, tmp_path, capsys):
    from eomt_mm.datasets.semantic import ScenesDataset

    names = list(ScenesDataset.METAINFO['classes'])
    assert convert(run_tool, tmp_path, names).exists()
    assert 'note' not in capsys.readouterr().out
    (tmp_path / 'ours.pth').unlink()

    names[:2] = names[1::-1]
    with pytest.raises(UserError, match=r'another order: class 0 .* in \S+config.py'):
        convert(run_tool, tmp_path, names)
    assert not (tmp_path / 'ours.pth').exists()
    names[:2] = names[1::-1]
    names[3] = 'other'
    assert convert(run_tool, tmp_path, names).exists()
    assert 'note: 1 names differ' in capsys.readouterr().out


def test_ade20k_panoptic_in_the_order_of_the_release(run_tool, tmp_path):
    """The file has the release's order, MMDetection things first."""
    from mmdet.datasets import ADE20KPanopticDataset
    from mmseg.datasets import ADE20KDataset

    base = 'configs/eomt/eomt_vitl_ade20k_panoptic_640.py'
    # MMSegmentation has the order of the release, and some names spelt otherwise.
    ours = convert(run_tool, tmp_path, list(ADE20KDataset.METAINFO['classes']), base)
    ours.unlink()
    with pytest.raises(UserError, match='the classes in another order'):
        convert(
            run_tool, tmp_path, list(ADE20KPanopticDataset.METAINFO['classes']), base
        )
