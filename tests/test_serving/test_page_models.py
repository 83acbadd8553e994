"""What the page shows is what inferencers and the predictor find and paint."""

import io
from argparse import Namespace

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmseg.apis import MMSegInferencer
from PIL import Image

from eomt_mm.errors import UserError
from serve import load_models
from serving.config_model import ConfigModel
from serving.onnx_model import OnnxModel
from serving.photo import Photo
from serving.saving import png
from serving.service import _thumbnails
from serving.settings import Run, View

TASKS = ['semantic', 'panoptic', 'instance']


@pytest.fixture(scope='module')
def inferred(tiny, pixels, tmp_path_factory):
    """`inferred('panoptic')` is the inferencer's data sample and its picture."""

    def get(task):
        path = tmp_path_factory.mktemp('photo') / 'photo.png'
        path.write_bytes(png(pixels))
        made = MMSegInferencer if task == 'semantic' else DetInferencer
        infer = made(str(tiny(task).config), str(tiny(task).checkpoint), device='cpu')
        np.random.seed(0)  # MMDetection varies the colours of instances
        picture = infer(str(path), return_vis=True)['visualization']
        found = infer(str(path), return_datasamples=True)
        if task == 'semantic':
            return found, picture
        return found['predictions'][0], picture[0]

    return get


@pytest.mark.parametrize('task', TASKS)
def test_segments_and_picture_are_those_of_the_inferencer(
    config_model, inferred, pixels, task
):
    model = config_model(task)
    outputs, size = model.look(pixels, Run()), pixels.shape[:2]
    found = model.finish(outputs, View({}), size)
    sample, picture = inferred(task)
    if task == 'semantic':
        labels = np.array([row.label for row in found.rows])[found.index - 1]
        assert (labels == sample.pred_sem_seg.data[0].numpy()).all()
        assert len(found.rows) > 1
    elif task == 'panoptic':
        void = len(model.classes)
        ids = [void, *(row.label + 1000 * row.number for row in found.rows)]
        expected = sample.pred_panoptic_seg.sem_seg[0].numpy()
        assert (np.array(ids)[found.index] == expected).all() and len(ids) > 2
        assert all(0 < row.score < 1 for row in found.rows)
    else:
        expected = sample.pred_instances
        sure = expected.scores[expected.scores > 0.5].sort(descending=True)[0]
        assert torch.tensor([row.score for row in found.rows]).equal(sure)
    np.random.seed(0)
    assert (model.picture(pixels, outputs, View({})) == picture).all()


def test_thresholds_act_on_what_is_kept(config_model, pixels):
    model = config_model('panoptic')
    outputs, size = model.look(pixels, Run()), pixels.shape[:2]
    counts = [
        len(model.finish(outputs, View(dict(object_mask_thr=value)), size).rows)
        for value in (0.0, 0.3, 0.99)
    ]
    assert counts[0] >= counts[1] > counts[2] == 0
    model = config_model('instance')
    outputs = model.look(pixels, Run())
    counts = [
        len(model.finish(outputs, View(values), size).rows)
        for values in (
            dict(object_mask_thr=0, max_per_image=20),
            dict(object_mask_thr=0, max_per_image=3),
            dict(object_mask_thr=1, max_per_image=20),
        )
    ]
    assert counts == [20, 3, 0]


@pytest.mark.parametrize('task', TASKS)
def test_the_network_inside(config_model, pixels, task):
    """The last prediction is the final one; queries are listed for all of them."""
    model = config_model(task)
    plain, inside = (model.look(pixels, Run(inside=inside)) for inside in (False, True))
    assert model.steps == ['before block 3', 'before block 4', 'final']
    assert len(inside.steps) == 3
    for one, other in zip(plain.steps[0], inside.steps[-1], strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    assert not torch.allclose(inside.steps[0].masks, inside.steps[-1].masks, atol=1e-2)
    told = _thumbnails(model, Photo('p', pixels), inside)
    assert len(told['queries']) == 8 and len(told['labels']) == 3
    masks = model.query_masks(inside, [0, 5], (12, 16))
    assert masks.shape == (3, 2, 12, 16) and masks.dtype == np.uint8
    assert len(np.unique(masks)) > 2


def test_dtype_and_merging_are_their_own_runs(config_model, pixels):
    model = config_model('semantic')
    assert model.dtypes == ['fp32', 'bf16'] and model.merging == ['off', 'any']
    plain = model.look(pixels, Run()).steps[0].masks
    for run in (Run(dtype='bf16'), Run(merging=40), Run(dtype='bf16', merging=40)):
        assert not torch.equal(model.look(pixels, run).steps[0].masks.float(), plain)
    assert torch.equal(model.look(pixels, Run()).steps[0].masks, plain)


def test_merging_of_the_config(config_model, pixels):
    merging = dict(type='eomt_mm.ALGM', keep=(0.5, 0.6))
    model = config_model('semantic', merging=merging)
    assert model.merging == ['own', 'off', 'any']
    own, off = (model.look(pixels, Run(merging=way)) for way in ('own', 'off'))
    assert not torch.equal(own.steps[0].masks, off.steps[0].masks)


@pytest.mark.parametrize('merged', [5, 50, 80])
def test_as_many_tokens_are_merged_as_asked_for(config_model, merged):
    kept = np.prod(config_model('semantic')._method(merged).keep)
    assert kept == pytest.approx(1 - merged / 100)


def test_confidence(config_model, pixels):
    model = config_model('semantic')
    outputs, size = model.look(pixels, Run()), pixels.shape[:2]
    for measure in model.confidences:
        found = model.confidence(outputs, View({}, confidence=measure), size)
        assert found.shape == size and 0 <= found.min() <= found.max() <= 1
    assert config_model('panoptic').confidences == []


@pytest.fixture(scope='module')
def onnx_model(tiny, run_tool, pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp('onnx')
    (folder / 'photo.png').write_bytes(png(pixels))

    def get(task):
        out = folder / f'{task}.onnx'
        if not out.exists():
            words = tiny(task).config, tiny(task).checkpoint
            run_tool(
                'deployment/export',
                *words,
                '--out',
                out,
                '--photo',
                folder / 'photo.png',
            )
        (model,) = load_models(Namespace(models=[str(out)], cfg_options=None))
        assert isinstance(model, OnnxModel)
        return model

    return get


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('model.test_cfg.tiles', {}, 'panoptic has test_cfg.tiles, and the page shows'),
        (
            'test_dataloader.dataset.pipeline.0.type',
            'eomt_mm.LoadMultiBandImage',
            r'given panoptic, takes photographs \(RGB\)',
        ),
    ],
)
def test_what_the_page_cannot_show(tiny, key, value, message):
    found = tiny('panoptic')
    cfg = Config.fromfile(found.config)
    cfg.merge_from_dict({key: value})
    with pytest.raises(UserError, match=message):
        ConfigModel(cfg, str(found.checkpoint), 'panoptic')


def test_boxes_are_those_of_the_config(tiny, pixels):
    found, boxes = tiny('instance'), {}
    size, view = pixels.shape[:2], View({})
    for box_from in ('mask', 'largest_component'):
        cfg = Config.fromfile(found.config)
        cfg.model.test_cfg.box_from = box_from
        model = ConfigModel(cfg, str(found.checkpoint), 'instance')
        outputs = model.look(pixels, Run())
        boxes[box_from] = model._instances(outputs, view, size).boxes
    assert not torch.equal(*boxes.values())


@pytest.mark.parametrize('task', TASKS)
def test_an_exported_model_shows_the_same(onnx_model, config_model, pixels, task):
    size, view = pixels.shape[:2], View({})
    if task == 'instance':
        view = View(dict(object_mask_thr=0.1))
    shown = []
    for model in (onnx_model(task), config_model(task)):
        outputs = model.look(pixels, Run())
        shown.append(model.finish(outputs, view, size))
        assert model.about()['task'] == task
        Image.open(io.BytesIO(png(model.picture(pixels, outputs, view))))
    one, other = shown
    assert [(r.label, r.number) for r in one.rows] == [
        (r.label, r.number) for r in other.rows
    ]
    assert (one.index != other.index).mean() < 0.01
    if task != 'semantic':
        scores = [[r.score for r in segments.rows] for segments in shown]
        assert np.allclose(*scores, atol=0.01)
