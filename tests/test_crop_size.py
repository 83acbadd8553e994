"""One line changes the crop size of every part, for every task."""

from pathlib import Path

import pytest
from mmengine.config import Config

from eomt_mm.cli.options import override
from eomt_mm.crop_size import check_crop_size, set_crop_size
from eomt_mm.errors import UserError

EOMT = Path(__file__).parents[1] / 'configs/eomt'
TASKS = ['ade20k', 'coco_panoptic_640', 'coco_instance_640']


def sizes(cfg):
    """Every size that stands in model and pipelines."""
    steps = [
        inner
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
        for step in loader.dataset.pipeline
        for inner in (step, *step.get('transforms', []))
    ]
    found = [step.size for step in steps if 'size' in step]
    assert len(found) == 4
    found.append(cfg.model.backbone.img_size)
    return {size if isinstance(size, int) else tuple(size) for size in found}


@pytest.mark.parametrize('task', TASKS)
def test_one_line_in_a_leaf(task, tmp_path):
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(
        f'_base_ = {str(EOMT / f"eomt_vitl_{task}.py")!r}\n'
        'from eomt_mm.crop_size import set_crop_size\n'
        'set_crop_size(_base_, (896, 896))\n'
    )
    cfg = Config.fromfile(leaf)
    expected = {(896, 896), 896} if task == 'ade20k' else {(896, 896)}
    assert sizes(cfg) == expected
    assert 'set_crop_size' not in cfg
    check_crop_size(cfg)
    cfg.dump(tmp_path / 'dumped.py')
    text = (tmp_path / 'dumped.py').read_text()
    assert 'import' not in text.replace('custom_imports', '').replace('imports=', '')
    assert sizes(Config.fromfile(tmp_path / 'dumped.py')) == expected


@pytest.mark.parametrize('task', TASKS)
def test_on_the_command_line(task):
    cfg = Config.fromfile(EOMT / f'eomt_vitl_{task}.py')
    override(cfg, {'crop_size': 896})
    expected = {(896, 896), 896} if task == 'ade20k' else {(896, 896)}
    assert sizes(cfg) == expected


def test_contradictions_are_refused():
    cfg = Config.fromfile(EOMT / 'eomt_vitl_ade20k.py')
    check_crop_size(cfg)
    cfg.merge_from_dict({'crop_size': (896, 896)})  # as MM's own tools do
    with pytest.raises(UserError, match=r'crop_size is \(896, 896\), but model'):
        check_crop_size(cfg)
    with pytest.raises(UserError, match='leave the explicit value out'):
        set_crop_size(cfg, 640)
    with pytest.raises(UserError, match='give one side'):
        set_crop_size(cfg, (640, -1))
