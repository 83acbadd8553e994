"""Strategies that cannot work end before anything is built, in one line."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from eomt_mm import cli
from eomt_mm.cli import strategies
from eomt_mm.engine import latest_checkpoint
from eomt_mm.errors import UserError

OURS = dict(type='eomt_mm.FSDPStrategy')
FLEXIBLE = dict(runner_type='FlexibleRunner', launcher='pytorch')


@pytest.mark.parametrize('name', ['fsdp', 'zero2'])
def test_one_base_line(root, tmp_path, name, monkeypatch):
    """The file adds to any config, and its strategy is known."""
    path = tmp_path / 'own.py'
    bases = ['eomt/eomt_vitl_ade20k.py', f'_base_/strategies/{name}.py']
    path.write_text(f'_base_ = {[str(root / "configs" / base) for base in bases]}')
    cfg = Config.fromfile(path)
    cfg.launcher = 'pytorch'
    monkeypatch.setattr(strategies, 'find_spec', lambda name: True)
    cli.check_strategy(cfg)
    cli.forgo_strategy(cfg)
    assert 'strategy' not in cfg and 'runner_type' not in cfg


@pytest.mark.parametrize(
    ('options', 'match'),
    [
        (dict(strategy=OURS, launcher='pytorch'), 'add runner_type=FlexibleRunner'),
        (dict(FLEXIBLE), 'strategy.type is missing'),
        (dict(FLEXIBLE, strategy=OURS, launcher='none'), 'dist_train.sh'),
        (dict(FLEXIBLE, strategy=dict(type='FSDPStrategy')), 'eomt_mm.FSDPStrategy'),
        (dict(FLEXIBLE, strategy=dict(type='eomt_mm.Fsdp')), 'Fsdp is not known'),
        (
            dict(FLEXIBLE, strategy=dict(type='eomt_mm.DeepSpeedStrategy')),
            'pip install "deepspeed<0.17"',
        ),
        (
            dict(FLEXIBLE, strategy=OURS, custom_hooks=[dict(type='eomt_mm.EMAHook')]),
            'leave one of them out',
        ),
    ],
)
def test_what_cannot_work(options, match, monkeypatch):
    monkeypatch.setattr(strategies, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match=match):
        cli.check_strategy(Config(options))


def test_other_runs_are_left_alone():
    cfg = Config(dict(launcher='none', model=dict(type='x')))
    cli.check_strategy(cfg)
    cli.forgo_strategy(cfg)
    assert cfg.model.type == 'x'


def test_folders_and_files(tmp_path):
    folder, file = tmp_path / 'iter_2.pth', tmp_path / 'iter_4.pth'
    folder.mkdir()
    (folder / 'mp_rank_00_model_states.pt').touch()
    file.touch()
    deepspeed = dict(type='eomt_mm.DeepSpeedStrategy')

    def resume(path, **options):
        cli.check_resumed_kind(
            Config(dict(load_from=str(path), resume=True, **options))
        )

    resume(folder, strategy=deepspeed)
    resume(file, strategy=OURS)
    with pytest.raises(UserError, match='not a folder of DeepSpeed'):
        resume(file, strategy=deepspeed)
    with pytest.raises(UserError, match='resume with the strategy'):
        resume(folder)
    assert cli.check_checkpoint(str(folder), resume=True) is None
    with pytest.raises(UserError, match=f'zero_to_fp32.py {tmp_path} OUT -t iter_2'):
        cli.check_checkpoint(str(folder))


def test_the_recorded_folder_is_the_newest(tmp_path):
    """The record is written last, and names the folder also where it has moved."""
    folder = tmp_path / 'iter_2.pth'
    folder.mkdir()
    (folder / 'mp_rank_00_model_states.pt').touch()
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_2.pth')
    assert latest_checkpoint(tmp_path) == (str(folder), [])


def test_a_checkpoint_replaces_pretrained_weights():
    backbone = dict(type='eomt_mm.QueryViT', pretrained=True)
    stock = dict(type='ResNet', pretrained='torchvision://resnet50')
    for part in (backbone, stock):
        cli.leave_pretrained(SimpleNamespace(model=dict(backbone=part)))
    assert backbone['pretrained'] is False and stock['pretrained']
