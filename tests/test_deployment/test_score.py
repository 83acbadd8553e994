"""tools/deployment/score.py: an exported file and the evaluator of a config."""

import numpy as np
import pytest
from PIL import Image

from eomt_mm.deploy import Predictor
from eomt_mm.deploy.predictor import load_photo
from eomt_mm.errors import UserError

LABELS = "dict(type='eomt_mm.LoadSemanticAnnotations'), dict(type='PackSegInputs')"
TESTED = """
test_dataloader['dataset'].update(
    data_root={root!r}, data_prefix=dict(img_path='img', seg_map_path='ann'),
    img_suffix='.png')
test_dataloader.update(num_workers=0, sampler=dict(type='DefaultSampler'))
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
"""


@pytest.fixture
def config(exported, photos, tmp_path):
    """A data set whose labels are the predictions, but for the upper half."""
    model = exported('semantic')
    predictor = Predictor(model.onnx)
    for folder in ('img', 'ann'):
        (tmp_path / folder).mkdir()
    photo = np.tile(load_photo(photos[0])[:70], (2, 1, 1))[:140]
    labels = predictor(photo).astype(np.uint8)
    labels[:70] = (labels[:70] + 1) % 4
    Image.fromarray(photo).save(tmp_path / 'img/a.png')
    Image.fromarray(labels).save(tmp_path / 'ann/a.png')
    text = model.config.read_text().replace("dict(type='PackSegInputs')", LABELS)
    config = tmp_path / 'scored.py'
    config.write_text(text + TESTED.format(root=str(tmp_path)))
    return config


def test_the_evaluator_scores_what_the_file_predicts(config, exported, run_tool):
    scores = run_tool('deployment/score', config, exported('semantic').onnx)
    assert scores['aAcc'] == pytest.approx(50, abs=0.1)


def test_files_that_the_evaluator_does_not_score(config, exported, run_tool, tmp_path):
    with pytest.raises(UserError, match='is a panoptic model, and .* is IoUMetric: '):
        run_tool('deployment/score', config, exported('panoptic').onnx)
    other = config.with_name('other.py')
    other.write_text(config.read_text().replace("'sky', 'sea')", "'sky', 'lake')"))
    with pytest.raises(UserError, match='the file has 4 classes, .*dataset 4, '):
        run_tool('deployment/score', other, exported('semantic').onnx)
