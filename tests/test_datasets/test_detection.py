"""Panoptic and instance datasets: what they load."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS
from PIL import Image
from pycocotools import mask as maskUtils

from eomt_mm.datasets import RetryUntilLabelled
from eomt_mm.datasets.scenes import CLASSES, draw_scene

ROOT = Path(__file__).parents[2]
THINGS = ('disc', 'square', 'triangle', 'star', 'ring')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory, run_tool):
    out = tmp_path_factory.mktemp('data') / 'scenes'
    options = ('--train', 2, '--val', 4, '--size', 32)
    run_tool('dataset_converters/make_scenes', out, *options)
    return out / 'ADEChallengeData2016'


def names(labels, dataset):
    return [dataset.metainfo['classes'][label] for label in labels]


def test_panoptic_scenes(scenes, build_coco):
    dataset, _ = build_coco('scenes_panoptic', scenes)
    assert len(dataset) == 4
    for index in range(4):
        _, semantic, instance = draw_scene(np.random.default_rng((0, 1, index)), 32)
        sample = dataset[index]['data_samples']
        found = sample.gt_sem_seg.sem_seg[0].numpy()
        assert (
            np.array(dataset.metainfo['classes'])[found] == np.array(CLASSES)[semantic]
        ).all()
        gt = sample.gt_instances
        painted = [i for i in range(1, 5) if (instance == i).any()]
        assert len(gt) == len(painted)
        for mask, label, number in zip(gt.masks, gt.labels, painted, strict=True):
            np.testing.assert_array_equal(mask, instance == number)
            assert THINGS[label] == CLASSES[semantic[instance == number][0]]


def test_instance_scenes(scenes, build_coco):
    dataset, _ = build_coco('scenes_instance', scenes)
    assert dataset.metainfo['classes'] == THINGS
    panoptic, _ = build_coco('scenes_panoptic', scenes)
    for one, other in zip(dataset, panoptic, strict=True):
        ours = one['data_samples'].gt_instances
        theirs = other['data_samples'].gt_instances
        np.testing.assert_array_equal(ours.masks.masks, theirs.masks.masks)
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert torch.equal(ours.bboxes.tensor, theirs.bboxes.tensor)


def perfect(sample):
    """The ground truth in the form of a prediction."""
    gt = sample['gt_instances']
    masks = torch.from_numpy(gt['masks'].masks).bool()
    result = {
        'img_id': sample['img_id'],
        'img_path': sample['img_path'],
        'ori_shape': sample['ori_shape'],
        'pred_instances': dict(
            bboxes=gt['bboxes'],
            labels=gt['labels'],
            scores=torch.ones(len(masks)),
            masks=masks,
        ),
    }
    if 'gt_sem_seg' in sample:
        segments = sample['gt_sem_seg']['sem_seg'].long().clone()
        segments[segments == 255] = 7  # void
        for number, mask in enumerate(masks, start=1):
            segments[0, mask] += 1000 * number
        result['pred_panoptic_seg'] = dict(sem_seg=segments)
    return result


@pytest.mark.parametrize(
    ('name', 'scores'),
    [
        ('scenes_panoptic', {'coco_panoptic/PQ': 100, 'coco_panoptic/PQ_st': 100}),
        ('scenes_instance', {'coco/segm_mAP': 1.0}),
    ],
)
def test_a_perfect_prediction_has_a_perfect_score(scenes, build_coco, name, scores):
    dataset, metric = build_coco(name, scenes)
    metric = METRICS.build(metric)
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        metric.process({}, [perfect(item['data_samples'].to_dict())])
    found = metric.evaluate(len(dataset))
    for key, value in scores.items():
        assert found[key] == pytest.approx(value)


def settings(kind):
    prefix = dict(img='') | (dict(seg='panoptic') if kind == 'panoptic' else {})
    return dict(ann_file='a.json', data_prefix=prefix)


@pytest.mark.parametrize('kind', ['panoptic', 'instance'])
def test_crowds_are_no_instances(coco, build_coco, kind):
    dataset, _ = build_coco(f'scenes_{kind}', coco(kind), **settings(kind))
    sample = dataset[0]['data_samples']
    gt = sample.gt_instances
    assert gt.labels.tolist() == [1]
    assert gt.masks.masks[0].sum() == 50
    if kind == 'panoptic':
        labels = sample.gt_sem_seg.sem_seg[0]
        assert labels.unique().tolist() == [1, 5, 255]
        assert (labels == 255).sum() == 600 - 50 - 300
    else:
        assert sample.ignored_instances.masks.masks.sum() == 2


def test_a_crop_of_nothing_but_a_crowd_is_tried_again(coco, build_coco):
    """Panoptic training makes no target of a crowd."""
    tries = []

    def crop(results):
        tries.append(1)
        shown = slice(0, 2), slice(20, 30)  # the crowd
        if len(tries) == 3:
            shown = slice(10, 20), slice(0, 30)  # the sky
        results['gt_seg_map'] = results['gt_seg_map'][shown]
        results['gt_masks'] = results['gt_masks'][np.array([], int)]
        return results

    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='eomt_mm.LoadPanopticAnnotations'),
        RetryUntilLabelled([crop]),
    ]
    options = settings('panoptic') | dict(pipeline=pipeline)
    build_coco('scenes_panoptic', coco('panoptic'), **options)[0][0]
    assert len(tries) == 3


LINE = dict(area=5, bbox=[3, 0, 0, 4])  # as largest minus least coordinate
PIXEL = dict(area=0, bbox=[3, 0, 0, 0])


@pytest.mark.parametrize(('thin', 'height'), [(LINE, 5), (PIXEL, 1)])
def test_thin_panoptic_segments(coco, build_coco, thin, height):
    def ids(ids):
        ids[ids == 1] = 0
        ids[:height, 3] = 1
        return ids

    root = coco('panoptic', square=thin, ids=ids)
    dataset, _ = build_coco('scenes_panoptic', root, **settings('panoptic'))
    sample = dataset[0]['data_samples']
    assert sample.gt_instances.labels.tolist() == [1]
    assert sample.gt_instances.bboxes.tensor.tolist() == [[3, 0, 4, height]]
    assert (sample.gt_sem_seg.sem_seg == 1).sum() == height


RUNS = dict(size=[20, 30], counts=[3 * 20, 5, 600 - 65])
POLYGON = [[3.0, 0, 3.6, 0, 3.6, 5, 3, 5]]


@pytest.mark.parametrize('mask', [RUNS, maskUtils.frPyObjects(RUNS, 20, 30), POLYGON])
@pytest.mark.parametrize('thin', [LINE, PIXEL])
def test_thin_instances(coco, build_coco, mask, thin):
    if isinstance(mask, dict) and isinstance(mask['counts'], bytes):
        mask = dict(mask, counts=mask['counts'].decode())
    root = coco('instance', square=dict(thin, segmentation=mask))
    dataset, _ = build_coco('scenes_instance', root, **settings('instance'))
    gt = dataset[0]['data_samples'].gt_instances
    assert gt.bboxes.tensor.tolist() == [[3, 0, 4, 5]]
    assert gt.masks.masks.sum() == 5


def test_instances_without_a_pixel_are_left_out(coco, build_coco):
    line = [[3.0, 1, 3, 4, 3, 1]]
    root = coco('instance', square=dict(PIXEL, segmentation=line))
    dataset, _ = build_coco('scenes_instance', root, **settings('instance'))
    assert len(dataset[0]['data_samples'].gt_instances) == 0


def test_segments_without_a_pixel_by_both_accounts_are_left_out(coco, build_coco):
    root = coco('panoptic', square=PIXEL, ids=lambda ids: ids * (ids != 1))
    dataset, _ = build_coco('scenes_panoptic', root, **settings('panoptic'))
    assert len(dataset[0]['data_samples'].gt_instances) == 0


def test_an_image_without_an_annotation_and_a_map(coco, build_coco):
    def add(content):
        other = dict(content['images'][0], id=8, file_name='b.png')
        return content | dict(images=[*content['images'], other])

    root = coco('panoptic', content=add)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / 'b.png')
    dataset, metric = build_coco('scenes_panoptic', root, **settings('panoptic'))
    sample = dataset[1]['data_samples']
    assert (sample.gt_sem_seg.sem_seg == 255).all()
    assert len(sample.gt_instances) == 0

    # It is not scored, whatever is predicted.
    paths = dict(ann_file=str(root / 'a.json'), seg_prefix=str(root / 'panoptic'))
    metric = METRICS.build(metric | paths)
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        result = perfect(item['data_samples'].to_dict())
        if result['img_id'] == 8:
            result['pred_panoptic_seg']['sem_seg'] = torch.full((1, 20, 30), 1001)
        metric.process({}, [result])
    assert metric.evaluate(2)['coco_panoptic/PQ'] == pytest.approx(100)


@pytest.mark.parametrize('outfile', [False, True])
def test_the_annotation_names_the_map(coco, build_coco, tmp_path, outfile):
    """Photographs in folders and other formats, maps under names of their own."""

    def rename(content):
        content['annotations'][0]['file_name'] = 'east/a_panoptic.png'
        return content

    root = coco('panoptic', image=dict(file_name='north/a.jpeg'), content=rename)
    for new, old in (
        ('north/a.jpeg', 'a.png'),
        ('panoptic/east/a_panoptic.png', 'panoptic/a.png'),
    ):
        (root / new).parent.mkdir(exist_ok=True)
        (root / old).rename(root / new)
    dataset, metric = build_coco('scenes_panoptic', root, **settings('panoptic'))
    metric |= dict(ann_file=str(root / 'a.json'), seg_prefix=str(root / 'panoptic'))
    if outfile:
        metric |= dict(outfile_prefix=str(tmp_path / 'out'), nproc=1)
    metric = METRICS.build(metric)
    metric.dataset_meta = dataset.metainfo
    metric.process({}, [perfect(dataset[0]['data_samples'].to_dict())])
    assert metric.evaluate(1)['coco_panoptic/PQ'] == pytest.approx(100)
    if outfile:
        assert (tmp_path / 'out.panoptic/east/a_panoptic.png').is_file()


def test_classes_that_are_left_out_need_no_mask(coco, build_coco):
    root = coco('instance', square=dict(segmentation=None))
    names = [name for name in THINGS if name != 'square']
    options = settings('instance') | dict(metainfo=dict(classes=names))
    dataset, _ = build_coco('scenes_instance', root, **options)
    assert len(dataset[0]['data_samples'].gt_instances) == 0


def test_a_dataset_of_stuff_alone(coco, build_coco):
    """MMDet's metric takes the first class for void, its number being 0."""

    def stuff(content):
        for category in content['categories']:
            category['isthing'] = 0
        segments = content['annotations'][0]['segments_info']
        segments[1]['iscrowd'] = 0
        segments[0]['category_id'] = 1
        return content

    root = coco('panoptic', content=stuff)
    kinds = dict(thing_classes=(), stuff_classes=(*THINGS, 'sky', 'ground'))
    options = settings('panoptic') | dict(metainfo=kinds)
    dataset, metric = build_coco('scenes_panoptic', root, **options)
    metric |= dict(ann_file=str(root / 'a.json'), seg_prefix=str(root / 'panoptic'))
    metric = METRICS.build(metric)
    metric.dataset_meta = dataset.metainfo
    sample = dataset[0]['data_samples'].to_dict()
    labels = sample['gt_sem_seg']['sem_seg']
    assert labels.unique().tolist() == [0, 2, 5, 255]
    metric.process({}, [perfect(sample)])
    scores = metric.evaluate(1)
    assert scores['coco_panoptic/PQ_st'] == pytest.approx(100)


def test_maps_without_instances(coco, build_coco):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='eomt_mm.LoadPanopticAnnotations', with_mask=False),
        dict(type='PackDetInputs'),
    ]
    options = settings('panoptic') | dict(pipeline=pipeline)
    dataset, _ = build_coco('scenes_panoptic', coco('panoptic'), **options)
    sample = dataset[0]['data_samples']
    assert 'masks' not in sample.gt_instances
    assert sample.gt_sem_seg.sem_seg.unique().tolist() == [1, 5, 255]


COCO_MINI = ROOT.parent / 'shared/data/coco_mini'


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason=f'no photographs at {COCO_MINI}')
def test_real_photographs(build_coco):
    """Every segment but the crowds, counted in the JSON, at the original size."""
    panoptic, _ = build_coco('coco_panoptic', COCO_MINI)
    things = stuff = 0
    for item in panoptic:
        sample = item['data_samples']
        labels = sample.gt_sem_seg.sem_seg[0]
        assert labels.shape == sample.ori_shape
        assert max(item['inputs'].shape[1:]) == 640
        things += len(sample.gt_instances)
        stuff += len([k for k in labels.unique().tolist() if 80 <= k < 133])
        for mask, label in zip(
            sample.gt_instances.masks, sample.gt_instances.labels, strict=True
        ):
            assert (labels.numpy()[mask.astype(bool)] == int(label)).all()
    assert len(panoptic) == 22
    assert (things, stuff) == (332 - 12, 419 - 332)

    instance, _ = build_coco('coco_instance', COCO_MINI)
    samples = [item['data_samples'] for item in instance]
    assert sum(len(sample.gt_instances) for sample in samples) == 293 - 10
    assert sum(len(sample.ignored_instances) for sample in samples) == 10


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason=f'no photographs at {COCO_MINI}')
@pytest.mark.parametrize('kind', ['panoptic', 'instance'])
def test_training_on_real_photographs(build_coco, kind):
    np.random.seed(0)
    cfg = Config.fromfile(ROOT / f'configs/_base_/datasets/coco_{kind}.py')
    dataset, _ = build_coco(
        f'coco_{kind}',
        COCO_MINI,
        test_mode=False,
        pipeline=cfg.train_dataloader.dataset.pipeline,
    )
    for item in dataset:
        sample = item['data_samples']
        assert item['inputs'].shape == (3, 640, 640)
        gt = sample.gt_instances
        assert gt.masks.masks.shape[1:] == (640, 640)
        assert gt.masks.masks.any((1, 2)).all()
        assert len(gt.labels) == len(gt.bboxes) == len(gt.masks)
        if kind == 'panoptic':
            assert sample.gt_sem_seg.sem_seg.shape == (1, 640, 640)
        else:
            assert 'gt_sem_seg' not in sample
