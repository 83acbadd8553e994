"""Panoptic quality against counts made by hand and MMDet's known scores."""

import math
import multiprocessing
import pickle
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

from eomt_mm.evaluation import PQStat, id2rgb, provide_panopticapi, rgb2id
from eomt_mm.registry import has_mmdet

with_mmdet = pytest.mark.skipif(not has_mmdet(), reason='needs MMDetection')

CATEGORIES = {
    1: dict(isthing=1),
    2: dict(isthing=1),
    7: dict(isthing=0),
    9: dict(isthing=0),  # never occurs
}


def example():
    stat = PQStat()
    stat[1].tp, stat[1].iou, stat[1].fp, stat[1].fn = 2, 1.5, 1, 3
    stat[2].fn = 2
    stat[7].tp, stat[7].iou = 1, 0.75
    return stat


def test_average():
    mean, of_class = example().pq_average(CATEGORIES, isthing=None)
    # Class 1: 1.5 / (2 + 0.5 + 1.5), 1.5 / 2, 2 / 4.
    assert of_class[1] == dict(pq=0.375, sq=0.75, rq=0.5)
    assert of_class[2] == dict(pq=0, sq=0, rq=0)
    assert of_class[7] == dict(pq=0.75, sq=0.75, rq=1)
    assert of_class[9] == dict(pq=0, sq=0, rq=0)
    assert mean == dict(pq=1.125 / 3, sq=0.5, rq=0.5, n=3)


def test_things_and_stuff():
    things, of_things = example().pq_average(CATEGORIES, isthing=True)
    stuff, of_stuff = example().pq_average(CATEGORIES, isthing=False)
    assert things == dict(pq=0.375 / 2, sq=0.375, rq=0.25, n=2)
    assert stuff == dict(pq=0.75, sq=0.75, rq=1, n=1)
    assert (list(of_things), list(of_stuff)) == ([1, 2], [7, 9])


def test_no_class_at_all_is_not_a_number():
    mean, _ = PQStat().pq_average(CATEGORIES, isthing=None)
    assert mean.pop('n') == 0
    assert all(math.isnan(value) for value in mean.values())


def test_sum_of_images_survives_pickling():
    total = example()
    total += pickle.loads(pickle.dumps(example()))
    assert (total[1].tp, total[1].iou, total[1].fp, total[1].fn) == (4, 3.0, 2, 6)
    assert total[7].iou == 1.5


def test_ids_and_colours():
    ids = np.array([[0, 255, 256], [65536, 7 + 256 * 8 + 65536 * 9, 256**3 - 1]])
    rgb = id2rgb(ids)
    assert rgb.dtype == np.uint8
    assert rgb.tolist() == [
        [[0, 0, 0], [255, 0, 0], [0, 1, 0]],
        [[0, 0, 1], [7, 8, 9], [255, 255, 255]],
    ]
    assert np.array_equal(rgb2id(rgb), ids)
    assert id2rgb(65536 + 2) == [2, 0, 1]
    assert rgb2id([2, 0, 1]) == 65536 + 2
    # Not ours to change.
    assert ids[1, 1] == 7 + 256 * 8 + 65536 * 9


def ask_for_panopticapi(_):
    from panopticapi.evaluation import PQStat as found

    return found is PQStat


def run(code):
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.fixture
def panopticapi_missing():
    try:
        metadata.version('panopticapi')
    except metadata.PackageNotFoundError:
        return
    pytest.skip('panopticapi itself is installed')


def test_the_real_package_wins(tmp_path):
    package = tmp_path / 'panopticapi'
    package.mkdir()
    (package / '__init__.py').write_text('real = True\n')
    run(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from eomt_mm.evaluation import provide_panopticapi
provide_panopticapi()
import panopticapi
assert panopticapi.real
""")


@with_mmdet
def test_stand_in_before_mmdet(panopticapi_missing):
    run("""
from eomt_mm.evaluation import PQStat, provide_panopticapi
provide_panopticapi()
provide_panopticapi()
from mmdet.evaluation.functional import panoptic_utils
from mmdet.evaluation.metrics import coco_panoptic_metric
assert panoptic_utils.PQStat is coco_panoptic_metric.PQStat is PQStat
assert coco_panoptic_metric.panopticapi is not None
from mmdet.datasets.transforms import LoadPanopticAnnotations
LoadPanopticAnnotations()
""")


@with_mmdet
def test_stand_in_after_mmdet(panopticapi_missing):
    run("""
from mmdet.apis import det_inferencer
from mmdet.evaluation.functional import panoptic_utils
from mmdet.evaluation.metrics import coco_panoptic_metric
assert panoptic_utils.PQStat is None
import eomt_mm.evaluation as ours
ours.provide_panopticapi()
assert panoptic_utils.PQStat is coco_panoptic_metric.PQStat is ours.PQStat
assert panoptic_utils.OFFSET == 256 ** 3
assert panoptic_utils.rgb2id is coco_panoptic_metric.rgb2id is ours.rgb2id
assert coco_panoptic_metric.id2rgb is det_inferencer.id2rgb is ours.id2rgb
assert coco_panoptic_metric.VOID == det_inferencer.VOID == 0
assert coco_panoptic_metric.panopticapi is not None
from mmdet.datasets.transforms import LoadPanopticAnnotations
LoadPanopticAnnotations()
""")


def test_stand_in_in_forked_processes(panopticapi_missing):
    provide_panopticapi()
    with multiprocessing.get_context('fork').Pool(1) as pool:
        assert pool.map(ask_for_panopticapi, [0]) == [True]
