"""Annotation files that contradict themselves or the config: one line, or the score."""

import json
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, init_default_scope
from pycocotools import mask as coco_masks

from eomt_mm.cli import check_data
from eomt_mm.datasets import annotation_check, mask_check
from eomt_mm.datasets.coco_file import InstanceFile
from eomt_mm.errors import UserError

DIRTY = Path(__file__).parents[3] / 'shared/data/dirty'
CLASSES = ('disc', 'square')
needs_files = pytest.mark.skipif(not DIRTY.is_dir(), reason='needs shared/data')


@pytest.fixture
def good():
    """The content of a file without a fault, four images with an annotation each."""
    if not DIRTY.is_dir():
        pytest.skip('needs shared/data')
    return json.loads((DIRTY / 'good.json').read_text())


@pytest.fixture
def write(tmp_path):
    """`write(content)` makes a file of it, and returns its path."""

    def dump(content):
        path = tmp_path / 'a.json'
        path.write_text(json.dumps(content))
        return path

    return dump


def dataset_of(path, **options):
    init_default_scope('mmdet')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='eomt_mm.LoadInstanceAnnotations'),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape')),
    ]
    return DATASETS.build(
        dict(
            type='eomt_mm.CocoInstanceDataset',
            ann_file=str(path),
            data_prefix=dict(img=str(DIRTY / 'images')),
            metainfo=dict(classes=CLASSES),
            pipeline=pipeline,
            **options,
        )
    )


def score_of_truth(dataset, path):
    metric = METRICS.build(
        dict(type='eomt_mm.CocoMetric', ann_file=str(path), metric='segm')
    )
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        sample = item['data_samples'].to_dict()
        truth = sample['gt_instances']
        masks = torch.from_numpy(truth['masks'].to_ndarray()).bool()
        sample['pred_instances'] = dict(
            bboxes=truth['bboxes'].tensor,
            labels=truth['labels'],
            scores=torch.ones(len(masks)),
            masks=masks,
        )
        metric.process({}, [sample])
    return metric.evaluate(len(dataset))['coco/segm_mAP']


@needs_files
@pytest.mark.parametrize('name', ['good', 'annotation_ids_from_0', 'no_iscrowd'])
def test_a_perfect_prediction_of_files_in_order(name):
    path = DIRTY / f'{name}.json'
    dataset = dataset_of(path, test_mode=True)
    assert len(dataset) == 4
    assert score_of_truth(dataset, path) == 1


@needs_files
def test_only_the_images_that_were_tested_are_scored():
    path = DIRTY / 'good.json'
    dataset = dataset_of(path, test_mode=True, indices=2)
    assert len(dataset) == 2
    assert score_of_truth(dataset, path) == 1


def test_missing_areas_and_boxes_are_those_of_the_masks(good, write):
    for annotation in good['annotations']:
        del annotation['area'], annotation['bbox']
    path = write(good)
    dataset = dataset_of(path, test_mode=True)
    assert dataset.get_data_info(0)['instances'][0]['bbox'] == [8, 6, 28, 22]
    assert score_of_truth(dataset, path) == 1


@needs_files
@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('image_id_as_text', "4 of 4 annotations belong to no image, .* '1'"),
        ('image_id_of_no_image', '4 of 4 annotations belong to no image, .* 101'),
        ('polygon_flat', r'annotation 1 has .*\[8, 6, 28.* not a list of lists'),
        ('polygon_of_pairs', r'a list of pairs \(1 of 4 such\); expected \[\[x1'),
        ('polygon_with_null', r'\[\[8, 6, None'),
        ('polygon_2e8', 'far outside of its image of 64 pixels'),
        ('height_as_text', "has height '"),
        ('bbox_of_nulls', r'has bbox \[None'),
    ],
)
@pytest.mark.parametrize('test_mode', [False, True])
def test_one_line_for_each_dirty_file(name, message, test_mode):
    start = time.process_time()
    with pytest.raises(UserError, match=message) as found:
        dataset_of(DIRTY / f'{name}.json', test_mode=test_mode)
    assert time.process_time() - start < 5
    assert '\n' not in str(found.value)
    with pytest.raises(UserError, match=message):
        METRICS.build(
            dict(type='eomt_mm.CocoMetric', ann_file=str(DIRTY / f'{name}.json'))
        )


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"a": NaN}', 'NaN is not a number in JSON'),
        ('{"a": -Infinity}', '-Infinity is not a number'),
        ('{"a": 1, "a": 2}', "the field 'a' 2 times: keep one"),
        ('{"a": ' + '[' * 200_000, 'nested too deeply|not a COCO'),
        ('\xff\xfe', 'is not a COCO annotation file'),
        ('', 'is not a COCO annotation file'),
        ('[]', 'but a list'),
    ],
)
def test_what_is_no_json_for_every_reader(tmp_path, text, message):
    path = tmp_path / 'a.json'
    path.write_bytes(text.encode('latin-1'))
    with pytest.raises(UserError, match=message):
        annotation_check.read(str(path))


@pytest.mark.parametrize(('name', 'flag'), [('disc', 0), ('sky', 1)])
def test_things_that_are_stuff_in_the_file(coco, build_coco, name, flag):
    def contradict(categories):
        return [c | dict(isthing=flag) if c['name'] == name else c for c in categories]

    root = coco('panoptic', categories=contradict)
    options = dict(ann_file='a.json', data_prefix=dict(img='', seg='panoptic'))
    with pytest.raises(UserError, match=f"isthing {flag} .* category '{name}'"):
        build_coco('scenes_panoptic', root, **options)


def test_panoptic_annotations_of_images_that_are_gone(coco, build_coco, caplog):
    def add(content):
        other = content['annotations'][0] | dict(image_id=8)
        return content | dict(annotations=[*content['annotations'], other])

    root = coco('panoptic', content=add)
    options = dict(ann_file='a.json', data_prefix=dict(img='', seg='panoptic'))
    dataset, metric = build_coco('scenes_panoptic', root, **options)
    assert len(dataset) == 1
    assert len(dataset[0]['data_samples'].gt_instances) == 1
    metric |= dict(ann_file=str(root / 'a.json'), seg_prefix=str(root / 'panoptic'))
    METRICS.build(metric)


@pytest.mark.parametrize('name', ['../a.png', '/a.png', 'C:a.png'])
def test_the_metric_refuses_names_that_lead_out(coco, build_coco, name):
    def lead_out(content):
        content['annotations'][0]['file_name'] = name
        return content

    root = coco('panoptic', content=lead_out)
    init_default_scope('mmdet')
    with pytest.raises(UserError, match='leads out of its folder'):
        METRICS.build(
            dict(
                type='eomt_mm.CocoPanopticMetric',
                ann_file=str(root / 'a.json'),
                seg_prefix=str(root / 'panoptic'),
            )
        )


@pytest.mark.parametrize('fault', ['', 'P', '0' * 9 + 'P', '~~', 'a\x00', '1', None])
def test_damaged_run_lengths(fault):
    runs = coco_masks.frPyObjects(dict(size=[20, 30], counts=[400, 2, 198]), 20, 30)
    good = runs['counts'].decode()
    assert mask_check._pixels(good) == 600
    assert mask_check._pixels(fault if fault is None else good + fault) in (
        (600,) if fault == '' else (None, *range(600), *range(601, 700))
    )


def test_an_evaluator_of_other_images_is_refused_before_the_test(good, write):
    for image in good['images'][2:]:
        image['id'] += 100
    good['annotations'] = good['annotations'][:2]
    path = write(good)
    cfg = Config(
        dict(
            default_scope='mmdet',
            test_dataloader=dict(
                dataset=dict(
                    type='eomt_mm.CocoInstanceDataset',
                    ann_file=str(DIRTY / 'good.json'),
                    data_prefix=dict(img=str(DIRTY / 'images')),
                    metainfo=dict(classes=CLASSES),
                    pipeline=[],
                )
            ),
            test_evaluator=dict(type='eomt_mm.CocoMetric', ann_file=str(path)),
        )
    )
    with pytest.raises(UserError, match='2 of 4 images of the test dataset'):
        check_data(cfg, 'test')


@pytest.mark.parametrize('kind', ['panoptic', 'instance'])
def test_only_images_without_annotations_are_filtered(coco, build_coco, kind):
    """COCO's training leaves out images without an instance, and no other."""

    def add(content):
        other = content['images'][0] | dict(id=8)
        return content | dict(images=[*content['images'], other])

    options = dict(ann_file='a.json', data_prefix=dict(img=''), test_mode=False)
    if kind == 'panoptic':
        options['data_prefix']['seg'] = 'panoptic'
    root = coco(kind, content=add)
    found = build_coco(
        f'scenes_{kind}', root, filter_cfg=dict(filter_empty_gt=True), **options
    )[0]
    assert [found.get_data_info(i)['img_id'] for i in range(len(found))] == [7]


@pytest.mark.parametrize(
    'wrong',
    [
        dict(area=10**30),
        dict(area=0),
        dict(bbox=[8, 6, 0, 16]),
        dict(bbox=[900, 6, 20, 16]),
        # What an image may have, and this mask has not.
        dict(bbox=[40, 30, 10, 10]),
        dict(bbox=[8, 6, 28, 22]),
        dict(bbox=[0, 0, 40, 32]),
        dict(bbox=[0.1, 0.1, 0.3, 0.3]),
        dict(bbox=[28, 22, -20, -16]),
        dict(area=1),
        dict(area=3000),
        dict(area=-1),
        dict(area=None, bbox=None),
        dict(area=10**400),
    ],
)
def test_wrong_areas_and_boxes_are_those_of_the_masks(good, write, wrong):
    good['annotations'][0] |= wrong
    path = write(good)
    dataset = dataset_of(path, test_mode=True)
    assert dataset.get_data_info(0)['instances'][0]['bbox'] == [8, 6, 28, 22]
    assert InstanceFile(str(path)).anns[1]['area'] == 320
    assert score_of_truth(dataset, path) == 1


@pytest.mark.parametrize('count', [1, 255, 256, 700])
@pytest.mark.parametrize('encoded', [False, True])
def test_any_number_of_masks_is_measured(good, write, count, encoded):
    """More than 255 at once overflow in pycocotools on NumPy 2."""
    first = good['annotations'][0] | dict(area=1)
    if encoded:
        size = [good['images'][0][side] for side in ('height', 'width')]
        first['segmentation'] = dict(size=size, counts=[0, 7, size[0] * size[1] - 7])
    good['annotations'] = [dict(first, id=i + 1) for i in range(count)]
    path = write(good)
    areas = {a['area'] for a in InstanceFile(str(path)).anns.values()}
    assert areas == {7 if encoded else 320}


COCO = Path(__file__).parents[3] / 'shared/data/coco_mini/annotations'


@pytest.mark.skipif(not COCO.is_dir(), reason=f'no annotations at {COCO}')
def test_areas_and_boxes_of_coco_stay():
    path = COCO / 'instances_val2017.json'
    given = {a['id']: a for a in json.loads(path.read_text())['annotations']}
    found = InstanceFile(str(path)).anns
    assert found.keys() == given.keys()
    for number, annotation in found.items():
        assert annotation['area'] == given[number]['area']
        assert annotation['bbox'] == given[number]['bbox']


@pytest.mark.parametrize(
    'rest',
    [[[1, 2, 3, 4]], [[1, 2]], [[]], [[1, 2, 3]], [[1, 2, 3, 4, 5, 6, 7]]],
)
def test_polygons_of_too_few_points_are_left_out_beside_others(good, write, rest):
    """pycocotools takes four numbers for a box."""
    good['annotations'][0]['segmentation'] += rest
    path = write(good)
    dataset = dataset_of(path, test_mode=True)
    assert score_of_truth(dataset, path) == 1


@pytest.mark.parametrize(
    'extra',
    [
        dict(segmentation=[[3, 3, 3, 3, 3, 3]]),
        dict(segmentation=[[3, 3, 3, 3, 3, 3]], area=0, bbox=[3, 3, 0, 0]),
        dict(segmentation=[[8, 6, 28, 22, 8, 6]]),
        dict(segmentation=[[-60, 6, -40, 6, -40, 22, -60, 22]]),
        dict(segmentation=dict(size=[48, 64], counts=[48 * 64])),
        dict(segmentation=dict(size=[48, 64], counts=[0, 0, 48 * 64])),
    ],
)
def test_masks_without_a_pixel_are_left_out(good, write, extra):
    """Whatever area and box they claim to have."""
    good['annotations'].append(good['annotations'][0] | dict(extra, id=99))
    path = write(good)
    dataset = dataset_of(path, test_mode=True)
    assert [len(dataset.get_data_info(i)['instances']) for i in range(4)] == [1] * 4
    assert score_of_truth(dataset, path) == 1


@pytest.mark.parametrize('flags', [dict(iscrowd=1), dict(iscrowd=True), dict(ignore=1)])
def test_nothing_but_crowds_is_nothing_to_train_with(good, write, flags):
    for annotation in good['annotations']:
        annotation |= flags
    path = write(good)
    with pytest.raises(UserError, match='nothing to train with'):
        dataset_of(path, test_mode=False)
    if 'iscrowd' in flags:
        with pytest.raises(UserError, match='there is no score: the 4 images'):
            score_of_truth(dataset_of(path, test_mode=True), path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(iscrowd='0'), r"has iscrowd '0' \(1 of 4 such\)"),
        (dict(ignore='0'), r"has ignore '0' \(1 of 4 such\)"),
        (dict(segmentation='x'), r"segmentation 'x' \(1 of 4 such\)"),
        (dict(id=None), 'annotation of image 1 has no id'),
        (dict(category_id=7), 'they are 1, 2: add'),
    ],
)
def test_messages_count_all_annotations(good, write, change, message):
    good['annotations'][0] |= change
    path = write(good)
    with pytest.raises(UserError, match=message):
        dataset_of(path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(images=[]), 'to image_id 1; there are no images'),
        (dict(images={}), 'the image entries are {}; expected a list'),
        (dict(categories=[]), 'it has none: add the category'),
        (
            dict(categories=[dict(id=i, name='disc') for i in (1, 2)]),
            "2 categories have the name 'disc'",
        ),
    ],
)
def test_lists_without_entries_and_namesakes(good, write, change, message):
    path = write(good | change)
    with pytest.raises(UserError, match=message):
        dataset_of(path, test_mode=True)


def test_one_photo_listed_twice_is_said(good, write):
    good['images'][1]['file_name'] = '0.png'
    path = write(good)
    with mock.patch('eomt_mm.datasets.annotation_check.print_log') as said:
        InstanceFile(str(path))
    assert "2 images have file_name '0.png'" in said.call_args.args[0]


@needs_files
def test_a_metric_without_ground_truth(tmp_path):
    metric = METRICS.build(dict(type='eomt_mm.CocoMetric', metric='segm'))
    with pytest.raises(UserError, match='CocoMetric has no ground truth'):
        metric.process({}, [dict(img_id=1, img_path='a.png')])
    with pytest.raises(UserError, match='metric should be one of .* but got mask'):
        METRICS.build(dict(type='eomt_mm.CocoMetric', metric='mask'))
