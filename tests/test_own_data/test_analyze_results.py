"""tools/analysis_tools/analyze_results.py, and MM's tools on own data."""

import csv
import pickle
import runpy
import sys
from importlib.metadata import files

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from eomt_mm import cli
from eomt_mm.compat import PAIRS, installed_version
from eomt_mm.run_lengths import encode_masks


def mm_tool(package, name):
    """A tool that MM's package brings along, below `.mim`."""
    here = package if installed_version(package) else PAIRS[package]
    return next(f for f in files(here) if str(f).endswith(name)).locate()


def built(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    return DATASETS.build(cfg.test_dataloader.dataset)


@pytest.fixture
def truth_as_prediction(datasets, check, tmp_path):
    """`truth_as_prediction(task)`: a config, and predictions without an error."""

    def write(task):
        root = datasets[task](tmp_path / 'pets')
        config = check.main([str(root), '--out', str(tmp_path / 'out')])
        dataset = built(config)
        if task == 'semantic':
            folder = tmp_path / 'found'
            folder.mkdir()
            for i in range(len(dataset)):
                sample = dataset[i]['data_samples']
                labels = sample.gt_sem_seg.data[0].numpy().astype(np.uint8)
                name = sample.img_path.rpartition('/')[2].replace('.jpg', '.png')
                Image.fromarray(labels).save(folder / name)
            return config, folder
        results = []
        for i in range(len(dataset)):
            sample = dataset[i]['data_samples']
            truth = sample.gt_instances
            masks = torch.from_numpy(truth.masks.to_ndarray().astype(bool))
            entry = dict(sample.metainfo)
            if task == 'instance':
                entry['pred_instances'] = dict(
                    bboxes=masks.new_zeros((len(masks), 4), dtype=torch.float32),
                    labels=truth.labels,
                    scores=torch.ones(len(masks)),
                    masks=[dict(runs) for runs in encode_masks(masks)],
                )
            else:
                ids = sample.gt_sem_seg.sem_seg[0].long().clone()
                ids[ids == 255] = len(dataset.metainfo['classes'])
                for number, (label, mask) in enumerate(
                    zip(truth.labels, masks, strict=True), start=1
                ):
                    ids[mask] = label + 1000 * number
                entry['pred_panoptic_seg'] = dict(sem_seg=ids[None])
            results.append(entry)
        path = tmp_path / 'found.pkl'
        path.write_bytes(pickle.dumps(results, protocol=2))
        return config, path

    return write


@pytest.mark.parametrize(
    ('task', 'score', 'best'),
    [
        ('semantic', 'mIoU', 100),
        ('panoptic', 'coco_panoptic/PQ', 100),
        ('instance', 'coco/segm_mAP', 1),
    ],
)
def test_a_perfect_prediction(
    run_tool, truth_as_prediction, tmp_path, task, score, best
):
    config, found = truth_as_prediction(task)
    out = tmp_path / 'analysis'
    scores = run_tool('analysis_tools/analyze_results', config, found, '--out', out)
    assert scores[score] == pytest.approx(best)
    names = {'scores.csv', 'confusion.csv', 'confusion.png', 'best.png', 'worst.png'}
    assert {path.name for path in out.iterdir()} == names
    rows = [*csv.reader((out / 'confusion.csv').open())]
    counts = np.array([row[1:] for row in rows[1:]], int)
    assert [row[0] for row in rows[1:]] == rows[0][1:]
    assert np.trace(counts) == counts.sum() > 0
    images = [*csv.reader((out / 'scores.csv').open())][1:]
    assert {row[1] for row in images} == {'1.0000'}


def test_the_worst_come_first(run_tool, truth_as_prediction, tmp_path):
    config, found = truth_as_prediction('semantic')
    worst = sorted(found.iterdir())[3]
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(worst)
    out = tmp_path / 'analysis'
    options = ('--out', out, '--number', 1)
    run_tool('analysis_tools/analyze_results', config, found, *options)
    images = [*csv.reader((out / 'scores.csv').open())][1:]
    assert images[0][0].endswith(f'/{worst.stem}.jpg') and float(images[0][1]) < 0.5
    assert images[1][1] == '1.0000'


def test_predictions_of_other_data(tool, truth_as_prediction, capsys, tmp_path):
    config, found = truth_as_prediction('semantic')
    main = tool('analysis_tools/analyze_results').main
    first = sorted(found.iterdir())[0]
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(first)
    argv = [str(config), str(found), '--out', str(tmp_path / 'analysis')]
    assert cli.run(main, argv) == 2
    assert 'has shape (5, 5)' in capsys.readouterr().err
    first.unlink()
    assert cli.run(main, argv) == 2
    assert 'is not there' in capsys.readouterr().err


def test_confusion_matrix_of_mmseg(truth_as_prediction, tmp_path, monkeypatch):
    """MMSegmentation's own tool reads the classes of `SegDataset`."""
    config, found = truth_as_prediction('semantic')
    tool = mm_tool('mmsegmentation', 'tools/analysis_tools/confusion_matrix.py')
    argv = [str(tool), str(config), str(found), str(tmp_path / 'matrix')]
    monkeypatch.setattr(sys, 'argv', argv)
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    runpy.run_path(str(tool), run_name='__main__')
    assert (tmp_path / 'matrix/confusion_matrix.png').stat().st_size > 1000


def test_analyze_results_of_mmdet(truth_as_prediction, tmp_path, monkeypatch):
    """MMDetection's own tool, told the name of MMDetection's loader."""
    config, found = truth_as_prediction('instance')
    tool = mm_tool('mmdet', 'tools/analysis_tools/analyze_results.py')
    loader = 'train_dataloader.dataset.pipeline.1.type=LoadAnnotations'
    argv = [str(tool), str(config), str(found), str(tmp_path / 'seen'), '--topk', '1']
    argv += ['--cfg-options', loader, 'model.backbone.pretrained=False']
    monkeypatch.setattr(sys, 'argv', argv)
    runpy.run_path(str(tool), run_name='__main__')
    assert len([*(tmp_path / 'seen/good').iterdir()]) == 1
