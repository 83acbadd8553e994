"""MMDet's metrics on real photographs, against the scores of the official tools."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from eomt_mm.registry import has_mmdet

if not has_mmdet():
    pytest.skip('needs MMDetection', allow_module_level=True)

from mmdet.datasets import CocoDataset, CocoPanopticDataset  # noqa: E402
from mmengine.evaluator import Evaluator  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from pycocotools.coco import COCO  # noqa: E402

from eomt_mm.errors import UserError  # noqa: E402
from eomt_mm.evaluation.coco_panoptic import CocoPanopticMetric  # noqa: E402


@pytest.fixture(scope='module')
def coco(real_data):
    return real_data / 'coco_mini'


def read_ids(path):
    red, green, blue = np.moveaxis(np.array(Image.open(path)).astype(int), -1, 0)
    return red + 256 * green + 65536 * blue


def predictions(coco, coarse):
    """The ground truth as results of a network, at full size or every 8th pixel."""
    truth = json.loads((coco / 'annotations/panoptic_val2017.json').read_text())
    label_of = {category['id']: i for i, category in enumerate(truth['categories'])}
    for annotation in truth['annotations']:
        ids = read_ids(coco / 'annotations/panoptic_val2017' / annotation['file_name'])
        height, width = ids.shape
        if coarse:
            ids = ids[::8, ::8].repeat(8, 0).repeat(8, 1)[:height, :width]
        result = np.full(ids.shape, len(label_of))
        instances = 0
        for segment in annotation['segments_info']:
            if segment['iscrowd']:
                continue
            # A number for each segment, also for stuff, which has one per image.
            instances += 1
            label = label_of[segment['category_id']]
            result[ids == segment['id']] = label + 1000 * instances
        yield dict(
            img_id=annotation['image_id'],
            img_path=annotation['file_name'].replace('.png', '.jpg'),
            ori_shape=ids.shape,
            pred_panoptic_seg=dict(sem_seg=torch.from_numpy(result)[None]),
        )


def evaluate(metric, meta, samples):
    init_default_scope('mmdet')
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = meta
    samples = list(samples)
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def panoptic_metric(coco, **options):
    return dict(
        type='eomt_mm.CocoPanopticMetric',
        ann_file=str(coco / 'annotations/panoptic_val2017.json'),
        seg_prefix=str(coco / 'annotations/panoptic_val2017'),
        **options,
    )


def test_images_without_anything_to_score(coco, tmp_path):
    """No image that was tested is annotated, and nothing is predicted."""
    path = coco / 'annotations/panoptic_val2017.json'
    content = json.loads(path.read_text())
    gone = content['annotations'].pop(0)
    (tmp_path / 'a.json').write_text(json.dumps(content))
    metric = panoptic_metric(coco) | dict(ann_file=str(tmp_path / 'a.json'))
    nothing = torch.full((1, 4, 4), len(content['categories']))
    sample = dict(
        img_id=gone['image_id'],
        img_path='a.jpg',
        ori_shape=(4, 4),
        pred_panoptic_seg=dict(sem_seg=nothing),
    )
    meta = CocoPanopticDataset.METAINFO
    with pytest.raises(UserError, match='no score: the 1 images that were tested'):
        evaluate(metric, meta, [sample])


@pytest.mark.parametrize('how', ['as they come', 'in processes', 'mmdet'])
@pytest.mark.parametrize('coarse', [False, True])
def test_panoptic_scores_of_the_official_tool(coco, coarse, how, tmp_path):
    metric = panoptic_metric(coco)
    if how == 'in processes':
        metric.update(nproc=2, outfile_prefix=str(tmp_path / 'results'))
    if how == 'mmdet':
        metric['type'] = 'mmdet.CocoPanopticMetric'
    samples = predictions(coco, coarse)
    scores = evaluate(metric, CocoPanopticDataset.METAINFO, samples)
    scores = {key.removeprefix('coco_panoptic/'): scores[key] for key in scores}
    expected = dict(PQ=100, SQ=100, RQ=100, PQ_th=100, PQ_st=100)
    if coarse:
        expected = dict(
            PQ=58.4597, SQ=67.4732, RQ=73.4497, PQ_th=50.4672, PQ_st=68.7002
        )
    assert {key: round(scores[key], 4) for key in expected} == expected


def test_results_are_left_as_they_are(coco):
    """They are painted and saved afterwards; MMDet's metric marks void in them."""
    sample = next(predictions(coco, coarse=False))
    before = sample['pred_panoptic_seg']['sem_seg'].clone()
    assert (before == 133).any(), 'no void'
    evaluate(panoptic_metric(coco), CocoPanopticDataset.METAINFO, [sample])
    assert torch.equal(sample['pred_panoptic_seg']['sem_seg'], before)


def test_results_that_are_not_there_are_asked_for(coco):
    sample = next(predictions(coco, coarse=False))
    del sample['pred_panoptic_seg']
    with pytest.raises(UserError, match='panoptic_on=True'):
        evaluate(panoptic_metric(coco), CocoPanopticDataset.METAINFO, [sample])


@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')
def test_instance_scores_of_the_official_tool(coco):
    truth = COCO(coco / 'annotations/instances_val2017.json')
    label_of = {number: label for label, number in enumerate(truth.getCatIds())}

    def samples():
        for image in truth.imgs.values():
            found = truth.loadAnns(truth.getAnnIds(image['id'], iscrowd=False))
            masks = [truth.annToMask(annotation) for annotation in found]
            masks = np.array(masks).reshape(-1, image['height'], image['width'])
            yield dict(
                img_id=image['id'],
                ori_shape=(image['height'], image['width']),
                pred_instances=dict(
                    bboxes=torch.zeros(len(found), 4),
                    labels=torch.tensor([label_of[a['category_id']] for a in found]),
                    scores=torch.tensor(
                        [1 - (a['id'] * 7919 % 1000) / 2000 for a in found],
                        dtype=torch.float64,
                    ),
                    masks=torch.from_numpy(masks).bool(),
                ),
            )

    metric = dict(
        type='mmdet.CocoMetric',
        ann_file=str(coco / 'annotations/instances_val2017.json'),
        metric='segm',
        metric_items=['mAP', 'AR@100'],
        proposal_nums=(1, 10, 100),  # MMDet names the first of them AR@100
    )
    scores = evaluate(metric, CocoDataset.METAINFO, samples())
    assert scores == {'coco/segm_mAP': 1.0, 'coco/segm_AR@100': 0.635}


def test_processes_follow_the_machine(coco):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None
    metric = CocoPanopticMetric(
        ann_file=str(coco / 'annotations/panoptic_val2017.json')
    )
    assert metric.nproc == (cores or os.cpu_count())
    assert CocoPanopticMetric(nproc=3).nproc == 3


def with_categories(tmp_path, change):
    """A metric whose annotation file has its categories changed."""
    meta = dict(
        classes=('cat', 'dog', 'sky'),
        thing_classes=('cat', 'dog'),
        stuff_classes=('sky',),
    )
    categories = [
        dict(id=1, name='cat', isthing=1),
        dict(id=3, name='dog', isthing=1),
        dict(id=2, name='sky', isthing=0),
    ]
    path = tmp_path / 'panoptic.json'
    image = dict(id=1, file_name='1.jpg', height=4, width=4)
    annotation = dict(image_id=1, file_name='1.png', segments_info=[])
    path.write_text(
        json.dumps(
            dict(
                images=[image], annotations=[annotation], categories=change(categories)
            )
        )
    )
    metric = CocoPanopticMetric(ann_file=str(path), seg_prefix=str(tmp_path))
    metric.dataset_meta = meta
    return metric


def test_categories_of_another_order(tmp_path):
    metric = with_categories(tmp_path, lambda categories: categories[::-1])
    with pytest.raises(UserError, match=r"another order.*3 classes.*'cat' to 'sky'"):
        metric.process({}, [])


def test_stuff_may_come_first(tmp_path):
    metric = with_categories(tmp_path, lambda found: [found[2], found[0], found[1]])
    metric.process({}, [])


def test_categories_of_other_names(tmp_path):
    metric = with_categories(tmp_path, lambda categories: categories[:1])
    with pytest.raises(UserError, match="has no category 'dog'"):
        metric.process({}, [])


def test_a_metric_that_cannot_be_built_says_why_and_nothing_else(tmp_path, capsys):
    with pytest.raises(FileNotFoundError):
        CocoPanopticMetric(ann_file=str(tmp_path / 'missing.json'))
    assert 'AttributeError' not in capsys.readouterr().err


@pytest.mark.parametrize('name', ['/a.png', '../a.png', 'b/../../a.png', 'C:a.png', 3])
def test_names_that_lead_out_are_refused_by_the_metric(tmp_path, name):
    """Results are written under the names in the file of the evaluator."""
    content = dict(
        images=[dict(id=1, file_name='a.jpg', height=4, width=4)],
        categories=[dict(id=1, name='cat', isthing=1)],
        annotations=[dict(image_id=1, file_name=name, segments_info=[])],
    )
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match='leads out of its folder|name of a panoptic'):
        CocoPanopticMetric(
            ann_file=str(tmp_path / 'truth.json'), seg_prefix=str(tmp_path)
        )
