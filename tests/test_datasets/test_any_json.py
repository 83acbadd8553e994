"""Any annotation file that differs from a good one in one field.

It is one line, or it is read: then there is something to train on, every image loads or
is one line, and the truth itself scores 1.
"""

import json
import time
from copy import deepcopy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.registry import METRICS

from eomt_mm.errors import UserError

VOID = 7
BOUND = 5  # seconds of the processor that a file may take
SCORE = {'instance': ('coco/segm_mAP', 1), 'panoptic': ('coco_panoptic/PQ', 100)}

numbers = st.one_of(
    st.integers(-2, 70),
    st.sampled_from([10**9, -(10**9), 2**31, 2**63, 10**30, 0.5, 1e-300, 2e8, 1e308]),
    st.floats(allow_nan=True, allow_infinity=True),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5))
values = st.one_of(
    scalars,
    st.sampled_from(['1', '64', '../a.png', 'sky', 'disc', 'b.png']),
    st.lists(scalars, max_size=8),
    st.lists(st.lists(numbers, max_size=8), max_size=3),
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(['size', 'counts', 'id']), inner, max_size=3
            )
        ),
        max_leaves=6,
    ),
    st.fixed_dictionaries(
        dict(
            size=st.sampled_from([[20, 30], [30, 20], [20, 31], [0, 0], 'ab']),
            counts=st.one_of(st.lists(st.integers(-9, 700), max_size=4), st.text()),
        )
    ),
)


def places(node, path=()):
    """Where a file has a value, outermost first."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in children:
        if isinstance(child, (dict, list)):
            yield from places(child, (*path, key))
        else:
            yield (*path, key)


def changed(content, path, value, remove):
    *way, last = path
    node = content = deepcopy(content)
    for key in way:
        node = node[key]
    if remove:
        del node[last]
    else:
        node[last] = value
    return content


def truth_as_prediction(sample):
    sample = sample.to_dict()
    gt = sample['gt_instances']
    masks = torch.from_numpy(gt['masks'].to_ndarray()).bool()
    sample['pred_instances'] = dict(
        bboxes=gt['bboxes'].tensor,
        labels=gt['labels'],
        scores=torch.ones(len(masks)),
        masks=masks,
    )
    if 'gt_sem_seg' in sample:
        segments = sample['gt_sem_seg']['sem_seg'].long().clone()
        segments[segments == 255] = VOID
        for number, mask in enumerate(masks, start=1):
            segments[0, mask] += 1000 * number
        sample['pred_panoptic_seg'] = dict(sem_seg=segments)
    return sample


def try_everything(kind, root, build_coco, content):
    """What a training and a test do with a file; the score of the truth."""
    (root / 'a.json').write_text(json.dumps(content))
    prefix = dict(img='') | (dict(seg='panoptic') if kind == 'panoptic' else {})
    options = dict(ann_file='a.json', data_prefix=prefix)
    name = f'scenes_{kind}'
    train, _ = build_coco(name, root, test_mode=False, **options)
    found = sum(len(train[i]['data_samples'].gt_instances) for i in range(len(train)))
    stuff = kind == 'panoptic'
    assert len(train) and (found or stuff), 'nothing to train on'
    test, metric = build_coco(name, root, **options)
    metric |= dict(ann_file=str(root / 'a.json'))
    if kind == 'panoptic':
        metric |= dict(seg_prefix=str(root / 'panoptic'))
    metric = METRICS.build(metric)
    metric.dataset_meta = test.metainfo
    for item in test:
        metric.process({}, [truth_as_prediction(item['data_samples'])])
    key, best = SCORE[kind]
    return metric.evaluate(len(test))[key] / best


@pytest.mark.parametrize('kind', ['instance', 'panoptic'])
def test_the_good_file(coco, build_coco, kind):
    root = coco(kind)
    content = json.loads((root / 'a.json').read_text())
    assert try_everything(kind, root, build_coco, content) == pytest.approx(1)


@pytest.mark.parametrize('kind', ['instance', 'panoptic'])
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,  # of a busy machine
    ],
)
@given(data=st.data())
def test_any_file_one_field_away(coco, build_coco, tmp_path, kind, data):
    if not (tmp_path / 'good.json').exists():
        (coco(kind) / 'a.json').rename(tmp_path / 'good.json')
    good = json.loads((tmp_path / 'good.json').read_text())
    path = data.draw(st.sampled_from(list(places(good))[1:]))
    remove = data.draw(st.booleans()) and data.draw(st.booleans())
    content = changed(good, path, data.draw(values), remove)
    start = time.process_time()
    try:
        score = try_everything(kind, tmp_path, build_coco, content)
    except UserError as error:
        assert '\n' not in str(error) and len(str(error)) < 1000
    else:
        assert score == pytest.approx(1)
    assert time.process_time() - start < BOUND
