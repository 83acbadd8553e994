"""The bridge to MMDetection."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.evaluation import CocoMetric, SemSegMetric
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks, encode_mask_results
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from pycocotools.mask import decode

from eomt_mm import registry
from eomt_mm.errors import UserError
from tiny_models import tiny_backbone

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
THINGS, STUFF = 3, 2


def config(**changes):
    """Three classes of things, two of stuff, images of 32 pixels."""
    model = dict(
        type='eomt_mm.EoMTDetector',
        data_preprocessor=dict(
            type='eomt_mm.EoMTDetDataPreprocessor',
            size=(32, 32),
            mean=MEAN,
            std=STD,
            bgr_to_rgb=True,
        ),
        backbone=tiny_backbone(),
        panoptic_head=dict(
            type='eomt_mm.PanopticHead',
            embed_dims=32,
            patch_size=8,
            num_things_classes=THINGS,
            num_stuff_classes=STUFF,
            criterion=dict(type='eomt_mm.Criterion', num_points=64),
        ),
        # Random weights are sure of nothing.
        test_cfg=dict(panoptic_on=True, instance_on=True, object_mask_thr=0.2),
    )
    for key, value in changes.items():
        model[key] = model[key] | value if isinstance(value, dict) else value
    return ConfigDict(model)


@pytest.fixture
def model():
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(config())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def sample(ori_shape, img_shape=None, **fields):
    meta = dict(ori_shape=ori_shape, img_shape=img_shape or ori_shape, img_path='a.jpg')
    return DetDataSample(metainfo=meta, **fields)


def photo(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        256, (3, height, width), generator=generator, dtype=torch.uint8
    )


def batch_of(*shapes):
    images = [photo(*shape, seed=i) for i, shape in enumerate(shapes)]
    samples = [sample((2 * h + 1, 3 * w), (h, w)) for h, w in shapes]
    return {'inputs': images, 'data_samples': samples}


def reference_logits(model, image, ori_shape):
    """The paper's inference, written out for one image."""
    height, width = image.shape[1:]
    padded = np.zeros((3, 32, 32), np.uint8)
    padded[:, :height, :width] = image.flip(0)
    mean, std = (np.array(v)[:, None, None] for v in (MEAN, STD))
    x = torch.from_numpy(((padded - mean) / std).astype(np.float32))
    with torch.no_grad():
        classes, masks = model.panoptic_head(*model.backbone(x[None]))
    masks = F.interpolate(masks, (32, 32), mode='bilinear')[:, :, :height, :width]
    if ori_shape:
        masks = F.interpolate(masks, ori_shape, mode='bilinear')
    return classes[0], masks[0]


def reference_segments(classes, masks, score_thr, overlap_thr=0.8):
    """Panoptic merging, one pixel set at a time."""
    scores, labels = classes.softmax(-1).max(-1)
    kept = [k for k in range(len(scores)) if labels[k] < 5 and scores[k] > score_thr]
    result = torch.full(masks.shape[1:], THINGS + STUFF)
    if not kept:
        return result
    prob = masks.sigmoid()
    owner = torch.stack([scores[k] * prob[k] for k in kept]).argmax(0)
    instance = 0
    for i, k in enumerate(kept):
        whole, visible = prob[k] >= 0.5, owner == i
        if not (whole & visible).any() or visible.sum() / whole.sum() < overlap_thr:
            continue
        is_thing = labels[k] < THINGS
        instance += int(is_thing)
        result[whole & visible] = labels[k] + (1000 * instance if is_thing else 0)
    return result


def test_results_equal_the_reference_and_come_from_one_forward(model):
    """Wide, high, full, one row, in one batch; segments and instances at once."""
    shapes = [(32, 20), (17, 32), (32, 32), (1, 32)]
    calls = []
    model.backbone.register_forward_pre_hook(lambda *_: calls.append(1))
    batch = batch_of(*shapes)
    with torch.no_grad():
        results = model.test_step(copy.deepcopy(batch))
    assert len(calls) == 1
    found = 0
    for image, (h, w), result in zip(batch['inputs'], shapes, results, strict=True):
        classes, masks = reference_logits(model, image, (2 * h + 1, 3 * w))
        expected = reference_segments(classes, masks, 0.2)
        segments = result.pred_panoptic_seg.sem_seg
        assert torch.equal(segments[0], expected), (h, w)
        found += len(segments.unique())

        things = result.pred_instances
        assert set(things.keys()) == {'bboxes', 'labels', 'scores', 'masks'}
        # 6 queries x 5 classes are fewer than max_per_image; stuff is left out.
        assert len(things) == 6 * THINGS
        order = torch.cartesian_prod(torch.arange(6), torch.arange(THINGS))
        expected = {}
        for query, label in order.tolist():
            mask = masks[query] > 0
            inside = (masks[query].sigmoid() * mask).sum() / (mask.sum() + 1e-6)
            score = classes[query].softmax(-1)[label] * inside
            expected[round(float(score), 5)] = (label, mask)
        for label, score, mask in zip(
            things.labels, things.scores, things.masks, strict=True
        ):
            if score < 1e-4:
                continue
            near = min(expected, key=lambda s: abs(s - float(score)))
            assert near == pytest.approx(float(score), abs=2e-5)
            assert expected[near][0] == label
            assert torch.equal(expected[near][1], mask)
    assert found > len(shapes), 'all void: nothing was compared'


@pytest.mark.parametrize('on', ['panoptic_on', 'instance_on', 'semantic_on'])
def test_each_result_can_be_asked_for_alone(model, on):
    off = dict(panoptic_on=False, instance_on=False)
    model.panoptic_fusion_head.test_cfg.update(off | {on: True})
    with torch.no_grad():
        (result,) = model.test_step(batch_of((32, 32)))
    assert ('pred_panoptic_seg' in result) is (on == 'panoptic_on')
    assert ('pred_instances' in result) is (on == 'instance_on')
    assert ('pred_sem_seg' in result) is (on == 'semantic_on')


def test_semantic_results(model):
    """Mask2Former's semantic inference, and MMDet's metric on it."""
    model.panoptic_fusion_head.test_cfg['semantic_on'] = True
    # Queries that differ from each other.
    torch.nn.init.normal_(model.backbone.queries, std=5)
    torch.nn.init.ones_(model.backbone.norm.weight)
    torch.nn.init.normal_(model.panoptic_head.mask_mlp[-1].weight, std=2)
    shapes = [(32, 20), (17, 32)]
    batch = batch_of(*shapes)
    with torch.no_grad():
        results = model.test_step(copy.deepcopy(batch))
    metric = SemSegMetric()
    metric.dataset_meta = dict(classes=('a', 'b', 'c', 'd', 'e'))
    pixels = []
    classes_found = set()
    for image, (h, w), result in zip(batch['inputs'], shapes, results, strict=True):
        # Both resizings of logits are left out: scores are resized instead.
        classes, masks = reference_logits(model, image, None)
        votes = torch.einsum(
            'qc,qhw->chw', classes.softmax(-1)[:, :-1], masks.sigmoid()
        )
        votes = F.interpolate(votes[None], (2 * h + 1, 3 * w), mode='bilinear')[0]
        found = result.pred_sem_seg.sem_seg
        assert found.shape == (1, 2 * h + 1, 3 * w)
        assert torch.equal(found[0], votes.argmax(0))
        classes_found |= set(found.unique().tolist())

        truth = found.clone()
        truth[:, : h // 2] = 255  # void
        truth[:, -3:] = 0
        known = truth != 255
        pixels.append(torch.stack([found[known], truth[known]]))
        result.gt_sem_seg = PixelData(sem_seg=truth)
    assert len(classes_found) > 1
    metric.process({}, [result.to_dict() for result in results])
    found, truth = torch.cat(pixels, dim=1)
    ious = [
        ((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum()
        for c in range(THINGS + STUFF)
        if c in found or c in truth
    ]
    assert 0 < min(ious) < 1
    mean = 100 * sum(ious) / len(ious)
    assert metric.evaluate(2)['mIoU'] == pytest.approx(float(mean), abs=0.01)


def test_encoded_masks_are_the_same_masks(model):
    batch = batch_of((32, 20), (17, 32))
    with torch.no_grad():
        plain = model.test_step(copy.deepcopy(batch))
        model.panoptic_fusion_head.test_cfg['encode_masks'] = True
        encoded = model.test_step(copy.deepcopy(batch))
    for one, other in zip(plain, encoded, strict=True):
        one, other = one.pred_instances, other.pred_instances
        assert isinstance(other.masks, list)
        masks = torch.from_numpy(decode(list(other.masks))).permute(2, 0, 1)
        assert one.masks.any() and torch.equal(masks.bool(), one.masks)
        assert torch.equal(one.scores, other.scores)

    # MMDet's metric scores both alike; the best instance is the ground truth.
    scores = []
    for results in (plain, encoded):
        metric = CocoMetric(metric='segm')
        metric.dataset_meta = dict(classes=('a', 'b', 'c'))
        for i, (one, result) in enumerate(zip(plain, results, strict=True)):
            best = one.pred_instances.scores.argmax()[None]
            (mask,) = encode_mask_results(one.pred_instances.masks[best].numpy())
            truth = dict(
                mask=mask | dict(counts=mask['counts'].decode()),
                bbox=one.pred_instances.bboxes[best][0].tolist(),
                bbox_label=int(one.pred_instances.labels[best]),
                ignore_flag=0,
            )
            result.set_metainfo(dict(img_id=i, instances=[truth]))
        metric.process({}, [result.to_dict() for result in results])
        scores.append(metric.evaluate(len(results)))
    assert scores[0] == scores[1]
    assert scores[0]['coco/segm_mAP'] > 0


def test_stock_maskformer_runs_the_same_weights(model):
    stock = config()
    test_cfg = stock.test_cfg | dict(filter_low_score=True, max_per_image=30)
    stock.update(
        type='MaskFormer',
        test_cfg=test_cfg,
        panoptic_fusion_head=ConfigDict(
            type='MaskFormerFusionHead',
            num_things_classes=THINGS,
            num_stuff_classes=STUFF,
        ),
    )
    stock = MODELS.build(stock).eval()
    stock.load_state_dict(model.state_dict(), strict=True)
    batch = batch_of((32, 20), (17, 32))
    with torch.no_grad():
        expected = stock.test_step(copy.deepcopy(batch))
        results = model.test_step(batch)
    for ours, theirs in zip(results, expected, strict=True):
        assert (
            ours.pred_panoptic_seg.sem_seg == theirs.pred_panoptic_seg.sem_seg
        ).all()
        ours, theirs = ours.pred_instances, theirs.pred_instances
        one, other = ours.scores.argsort(), theirs.scores.argsort()
        torch.testing.assert_close(ours.scores[one], theirs.scores[other])
        assert torch.equal(ours.labels[one], theirs.labels[other])
        assert torch.equal(ours.masks[one], theirs.masks[other])
        torch.testing.assert_close(ours.bboxes[one], theirs.bboxes[other].float())

    data = stock.data_preprocessor(training_batch([(0, (0, 9))]), True)
    assert set(stock(**data, mode='loss')) == {'loss_cls', 'loss_mask', 'loss_dice'}


def test_padding_is_raw_zero_and_img_shape_stays(model):
    batch = batch_of((20, 32), (32, 11))
    data = model.data_preprocessor(batch)
    assert data['inputs'].shape == (2, 3, 32, 32)
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(
        data['inputs'][0, :, 20:], black[:, None, None].expand(3, 12, 32)
    )
    meta = data['data_samples'][1].metainfo
    assert meta['img_shape'] == (32, 11)
    assert meta['batch_input_shape'] == meta['pad_shape'] == (32, 32)


def test_an_image_larger_than_the_network_is_refused(model):
    with pytest.raises(UserError, match='40 x 20 pixels is larger .* 32 x 32'):
        model.data_preprocessor(batch_of((40, 20)))


def training_batch(*images, size=(32, 32), stuff=4):
    """Build a batch from (label, rows) of each image; the rest is one stuff class."""
    samples = []
    for things in images:
        masks = np.zeros((len(things), *size), np.uint8)
        stuff_map = torch.full((1, *size), stuff, dtype=torch.uint8)
        for mask, (label, (top, bottom)) in zip(masks, things, strict=True):
            mask[top:bottom] = 1
            stuff_map[0, top:bottom] = label
        gt = InstanceData(
            labels=torch.tensor([label for label, _ in things], dtype=torch.int64),
            masks=BitmapMasks(masks, *size),
        )
        samples.append(
            sample(size, gt_instances=gt, gt_sem_seg=PixelData(sem_seg=stuff_map))
        )
    images = [photo(*size, seed=i) for i in range(len(images))]
    return {'inputs': images, 'data_samples': samples}


def test_training_loss_names_and_gradients(model):
    """One image is without any target."""
    batch = training_batch([(0, (0, 9)), (2, (9, 20))], [])
    batch['data_samples'][1].gt_sem_seg.sem_seg[:] = 255
    model.train()
    model.backbone.mask_probs = [1.0, 0.5]
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    kinds = ('loss_cls', 'loss_mask', 'loss_dice')
    assert set(losses) == {f'{p}{k}' for p in ('', 'd0.', 'd1.') for k in kinds}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_batch_without_any_target(model):
    batch = training_batch([], [], stuff=255)
    model.train()
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    assert losses['loss_mask'] == 0 and losses['loss_cls'] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_ground_truth_is_padded_with_the_image(model):
    batch = training_batch([(1, (0, 9))], size=(20, 32))
    data = model.data_preprocessor(batch, True)
    (target,) = model.panoptic_head.targets(data['data_samples'])
    assert target.labels.tolist() == [1, 4]
    assert target.masks.shape == (2, 32, 32)
    assert target.masks.sum((1, 2)).tolist() == [9 * 32, 11 * 32]


def test_polygons_do_as_well(model):
    square = [np.array([4.0, 4, 12, 4, 12, 12, 4, 12])]
    batch = training_batch([])
    batch['data_samples'][0].gt_instances = InstanceData(
        labels=torch.tensor([1]), masks=PolygonMasks([square], 32, 32)
    )
    (target, *_) = model.panoptic_head.targets(batch['data_samples'])
    assert target.masks[0].sum() == 64


def test_validation_masks_while_training_masks(model):
    image = model.data_preprocessor(batch_of((32, 32)))['inputs']
    with torch.no_grad():
        plain = model(image)
        model.backbone.mask_probs = [1.0, 1.0]
        masked = model(image)
        expected = model.backbone.forward_masked(image, model.panoptic_head)[-1]
    assert all(map(torch.equal, masked, expected))
    assert not torch.allclose(masked[1], plain[1])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(panoptic_head=dict(num_stuff_classes=9)), r'class_head.weight is \(6, '),
        (dict(backbone=dict(num_queries=9)), r'backbone.queries is \(6, 32\)'),
    ],
)
def test_checkpoint_of_another_model_is_refused(model, change, message):
    other = MODELS.build(config(**change))
    with pytest.raises(UserError, match=message):
        other.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(panoptic_head=dict(num_stuff_classes=0)), 'num_stuff_classes is 0'),
        (dict(panoptic_head=dict(num_things_classes=998)), '1000 classes, but'),
        (dict(test_cfg=dict(mask_thr=0.5)), "'mask_thr'. Known are: panoptic_on, "),
        (dict(test_cfg=dict(box_from=1.5)), 'test_cfg.box_from is 1.5, expected'),
    ],
)
def test_configs_that_cannot_work(change, message):
    init_default_scope('mmdet')
    with pytest.raises(UserError, match=message):
        MODELS.build(config(**change))


def test_bridge_is_listed_only_with_compiled_operators(monkeypatch):
    assert registry.has_mmdet()
    monkeypatch.setattr(registry.PathFinder, 'find_spec', lambda *_: None)
    assert not registry.has_mmdet()


WITHOUT_MMDET = """
import sys

sys.modules['mmdet'] = None  # as if it were not installed

from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

cfg = Config.fromfile(sys.argv[1])
init_default_scope('mmseg')
print(type(MODELS.build(cfg.model)).__name__, DATASETS.get('eomt_mm.ScenesDataset'))
"""


@pytest.mark.slow
def test_semantic_models_need_no_mmdet(root):
    config = root / 'configs/demo/eomt_scenes_semantic.py'
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_MMDET, str(config)],
        cwd=root,
        capture_output=True,
        text=True,
    )
    # The fork of OpenMMLab prints lines of its own before.
    assert done.stdout.splitlines()[-1].startswith('EoMTSegmentor'), done.stderr
