"""Photos of one name in two folders: every tool keeps a result of each."""

import shutil

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

FOLDERS = ('bonn', 'ulm')


@pytest.fixture
def argv(config, trained, ade_root, tmp_path):
    root = tmp_path / 'data'
    for kind in ('images', 'annotations'):
        for folder in FOLDERS:
            shutil.copytree(
                ade_root / kind / 'validation', root / kind / 'validation' / folder
            )
    cfg = Config.fromfile(config)
    # Photos, predictions and pictures of the two folders differ.
    for path in root.glob('images/*/ulm/*.jpg'):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(root)
    path = tmp_path / 'two.py'
    cfg.dump(path)
    return [str(path), str(trained)]


def mirrored(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.png'))


WANTED = [f'{folder}/{i}.png' for folder in FOLDERS for i in range(4)]


def test_test(tool, argv, tmp_path):
    out, show = tmp_path / 'out', tmp_path / 'show'
    argv = [*argv, '--work-dir', str(tmp_path / 'w'), '--out', str(out)]
    tool('test').main([*argv, '--show-dir', str(show)])
    assert mirrored(out) == mirrored(show) == WANTED
    one, other = (np.asarray(Image.open(show / f / '0.png')) for f in FOLDERS)
    assert (one != other).any()


def test_show_results(tool, argv, tmp_path):
    argv = [*argv, '--out', str(tmp_path / 'panels')]
    written = tool('analysis_tools/show_results').main(argv)
    assert len(written) == 9
    assert mirrored(tmp_path / 'panels') == sorted([*WANTED, 'panels.png'])


def test_the_output_folder_of_an_evaluator(tool, argv, tmp_path):
    cfg = Config.fromfile(argv[0])
    cfg.test_evaluator = dict(
        type='IoUMetric', format_only=True, output_dir=str(tmp_path / 'out')
    )
    cfg.dump(argv[0])
    tool('test').main([*argv, '--work-dir', str(tmp_path / 'w')])
    assert mirrored(tmp_path / 'out') == WANTED


def test_pictures_of_a_validation(tool, argv, ade_root, tmp_path):
    cfg = Config.fromfile(argv[0])
    cfg.train_cfg.val_interval = 2
    cfg.default_hooks.visualization = dict(type='SegVisualizationHook', draw=True)
    cfg.dump(argv[0])
    tool('train').main([argv[0], '--work-dir', str(tmp_path / 'w')])
    found = sorted(path.name for path in (tmp_path / 'w').rglob('vis_image/*.png'))
    assert found == [f'val_{f}__{i}_2.png' for f in FOLDERS for i in range(4)]
