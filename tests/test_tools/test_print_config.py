"""tools/misc/print_config.py."""

from mmengine.config import Config

from eomt_mm import cli


def test_prints_and_saves(tool, config, tmp_path, capsys):
    saved = tmp_path / 'whole.py'
    argv = [str(config), '--cfg-options', 'data_root=/d', '--save-path', str(saved)]
    assert cli.run(tool('misc/print_config').main, argv) == 0
    assert "data_root='/d'" in capsys.readouterr().out
    assert Config.fromfile(saved).train_dataloader.dataset.data_root == '/d'


def test_unknown_suffix(tool, config, capsys):
    argv = [str(config), '--save-path', 'a.txt']
    assert cli.run(tool('misc/print_config').main, argv) == 2
    assert 'a.txt' in capsys.readouterr().err
