"""Confusion of classes, and predictions read from files."""

import io
import pickle

import numpy as np
import pytest
import torch

from eomt_mm.errors import UserError
from eomt_mm.evaluation.confusion import confusion, mean_iou, shares
from eomt_mm.evaluation.stored_results import read_results


def test_confusion_counts_pixels():
    truth = np.array([0, 0, 1, 1, 255, -1])
    found = np.array([0, 1, 1, 2, 0, 0])
    counts = confusion(truth, found, 2)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 1], [2, 0, 0]]
    # Class 0: 1 of 2; class 1: 1 of 3. Void does not count.
    assert mean_iou(counts) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert shares(counts)[0].tolist() == [50, 50, 0]
    assert np.isnan(mean_iou(confusion(np.array([255]), np.array([0]), 2)))


def test_many_classes_do_not_overflow():
    truth = np.full(3, 149, np.uint8)
    counts = confusion(truth, truth, 150)
    assert counts[149, 149] == 3 and counts.sum() == 3


def test_results_are_read_as_data(tmp_path):
    path = tmp_path / 'found.pkl'
    masks = [dict(size=[2, 2], counts=b'04')]
    instances = dict(scores=torch.tensor([0.5]), masks=masks)
    path.write_bytes(
        pickle.dumps([dict(img_path='a.png', pred_instances=instances)], protocol=2)
    )
    (entry,) = read_results(path)
    assert entry['pred_instances']['scores'].tolist() == [0.5]
    assert entry['pred_instances']['masks'][0]['counts'] == b'04'


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), 'w')


def test_code_in_results_does_not_run(tmp_path):
    path, mark = tmp_path / 'found.pkl', tmp_path / 'mark'
    path.write_bytes(pickle.dumps([Hostile(mark)], protocol=2))
    with pytest.raises(UserError, match='no file of predictions'):
        read_results(path)
    buffer = io.BytesIO()
    torch.save(Hostile(mark), buffer)
    inner = pickle.dumps(torch.zeros(1).untyped_storage(), protocol=2)
    assert b'_load_from_bytes' in inner
    storage = Stored(buffer.getvalue())
    path.write_bytes(pickle.dumps([storage], protocol=2))
    with pytest.raises(UserError, match='no file of predictions'):
        read_results(path)
    assert not mark.exists()


class Stored:
    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


@pytest.mark.parametrize('content', [b'', b'not a pickle', pickle.dumps({'a': 1})])
def test_other_files(tmp_path, content):
    path = tmp_path / 'found.pkl'
    path.write_bytes(content)
    with pytest.raises(UserError, match='predictions'):
        read_results(path)
    with pytest.raises(UserError, match='not found'):
        read_results(tmp_path / 'none.pkl')
