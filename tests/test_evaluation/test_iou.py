"""The mean IoU is MMSegmentation's, and what it leaves out is said."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric as StockIoUMetric

from eomt_mm.errors import UserError
from eomt_mm.evaluation.iou import IoUMetric


def score(kind, truth, prediction, classes, **meta):
    metric = kind(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=classes, **meta)
    for labels, predicted in zip(truth, prediction, strict=True):
        sample = dict(
            gt_sem_seg=dict(data=torch.tensor([labels])),
            pred_sem_seg=dict(data=torch.tensor([predicted])),
        )
        metric.process({}, [sample])
    return metric.evaluate(len(truth))


@pytest.fixture
def warned(monkeypatch):
    found = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(
        logger, '_log', lambda level, text, *_, **__: found.append(text)
    )
    return lambda: [text for text in found if 'pixels' in text or 'never' in text]


def test_absent_classes_are_left_out_of_the_mean(warned):
    """The reference counts 0 for them."""
    truth, prediction = [[[0, 0, 1, 1]]], [[[0, 0, 1, 1]]]
    found = [
        score(kind, truth, prediction, ('a', 'b', 'c'))['mIoU']
        for kind in (IoUMetric, StockIoUMetric)
    ]
    assert found == [100, 100]
    assert warned() == [
        '1 of 3 classes never occur in the labels of 1 images: c; those that are not '
        'predicted either are left out of the mean'
    ]


def test_a_predicted_class_that_is_absent_counts():
    found = score(IoUMetric, [[[0, 0, 1, 1]]], [[[0, 0, 1, 2]]], ('a', 'b', 'c'))
    assert found['mIoU'] == pytest.approx(50, abs=0.01)


def test_ignored_pixels_are_counted(warned):
    truth, prediction = [[[255, 255, 255, 0]]] * 2, [[[0, 0, 0, 0]]] * 2
    found = score(IoUMetric, truth, prediction, ('crack',), reduce_zero_label=True)
    assert found['mIoU'] == 100
    (line,) = warned()
    assert line.startswith('6 of the 8 pixels (75%) in the labels of 2 images are')
    assert 'any model scores 100' in line


def test_nothing_labelled_is_no_score():
    with pytest.raises(UserError, match='there is no score: 4 of the 4 pixels'):
        score(IoUMetric, [[[255] * 4]], [[[0] * 4]], ('a', 'b'))
