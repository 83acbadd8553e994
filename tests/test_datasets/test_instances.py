"""Instances go through the augmentation in step with image and label map."""

import numpy as np
import pytest
from mmdet.datasets.transforms import PackDetInputs, RandomFlip
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import init_default_scope
from PIL import Image

from eomt_mm.datasets import (
    ColorJitter,
    FitInside,
    PadAndCrop,
    RetryUntilLabelled,
    ScaleJitter,
)

HEIGHT, WIDTH = 30, 40
# label, (top, bottom, left, right), crowd
INSTANCES = [
    (3, (0, 10, 0, 20), False),
    (1, (12, 30, 5, 35), False),
    (2, (0, 5, 30, 40), True),
    (4, (29, 30, 39, 40), False),  # one pixel in the corner
]


def sample(polygons=False):
    """What MMDet's loader makes of `INSTANCES`; the image shows the label map."""
    masks = np.zeros((len(INSTANCES), HEIGHT, WIDTH), np.uint8)
    labels = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for mask, (label, (top, bottom, left, right), _) in zip(
        masks, INSTANCES, strict=True
    ):
        mask[top:bottom, left:right] = 1
        labels[top:bottom, left:right] = label
    masks = BitmapMasks(masks, HEIGHT, WIDTH)
    if polygons:
        corners = [
            np.array([left, top, right, top, right, bottom, left, bottom], float)
            for _, (top, bottom, left, right), _ in INSTANCES
        ]
        masks = PolygonMasks([[c] for c in corners], HEIGHT, WIDTH)
    boxes = [
        (left, top, right, bottom) for _, (top, bottom, left, right), _ in INSTANCES
    ]
    return dict(
        img=np.repeat(labels[..., None], 3, axis=-1),
        img_shape=(HEIGHT, WIDTH),
        gt_seg_map=labels,
        gt_masks=masks,
        gt_bboxes=HorizontalBoxes(np.array(boxes, np.float32)),
        gt_bboxes_labels=np.array([label for label, _, _ in INSTANCES]),
        gt_ignore_flags=np.array([crowd for _, _, crowd in INSTANCES]),
    )


def check_in_step(results):
    """Masks lie on the label map, boxes around the masks, and none is empty."""
    masks = results['gt_masks']
    assert isinstance(masks, BitmapMasks)
    assert (masks.height, masks.width) == results['img_shape']
    assert results['img'].shape[:2] == results['gt_seg_map'].shape
    assert results['gt_seg_map'].shape == results['img_shape']
    count = len(masks)
    for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags'):
        assert len(results[key]) == count, key
    for mask, box, label in zip(
        masks, results['gt_bboxes'].tensor, results['gt_bboxes_labels'], strict=True
    ):
        assert mask.any()
        assert (results['gt_seg_map'][mask.astype(bool)] == label).all()
        ys, xs = np.nonzero(mask)
        expected = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert box.tolist() == expected
    PackDetInputs()(results)


def test_scale_jitter_resizes_masks_as_the_label_map():
    for scale in (0.1, 0.37, 1.0, 2.0):
        results = ScaleJitter(40, (scale, scale))(sample())
        check_in_step(results)
        for label in results['gt_bboxes_labels']:
            (at,) = np.flatnonzero(results['gt_bboxes_labels'] == label)
            mask = results['gt_masks'].masks[at]
            assert mask.sum() == (results['gt_seg_map'] == label).sum()
    assert len(results['gt_masks']) == 4
    assert results['gt_masks'].masks[0].sum() == 4 * 10 * 20


def test_masks_that_vanish_are_dropped():
    results = ScaleJitter(40, (0.1, 0.1))(sample())  # 3 x 4 pixels are left
    assert results['img_shape'] == (3, 4)
    assert 4 not in results['gt_bboxes_labels']
    check_in_step(results)


def test_crops_keep_what_they_show():
    np.random.seed(0)
    seen = set()
    for _ in range(200):
        results = PadAndCrop((8, 50))(sample())
        check_in_step(results)
        assert results['img'].shape == (8, 50, 3)
        labels = results['gt_seg_map']
        assert (labels[:, WIDTH:] == 255).all()
        shown = set(np.unique(labels).tolist()) - {255}
        assert set(results['gt_bboxes_labels'].tolist()) == shown
        seen.add(frozenset(shown))
    assert {1, 4} in seen and {2, 3} in seen and {1} in seen


def test_polygons_become_bitmaps():
    bitmaps = PadAndCrop((HEIGHT, WIDTH))(sample())
    polygons = PadAndCrop((HEIGHT, WIDTH))(sample(polygons=True))
    np.testing.assert_array_equal(polygons['gt_masks'].masks, bitmaps['gt_masks'].masks)
    check_in_step(polygons)


def test_a_sample_without_any_instance():
    empty = sample()
    for key in ('gt_masks', 'gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags'):
        empty[key] = empty[key][np.array([], int)]
    results = PadAndCrop(50)(ScaleJitter(50, (0.5, 0.5))(empty))
    assert results['gt_masks'].masks.shape == (0, 50, 50)
    check_in_step(results)


def train_pipeline(**settings):
    init_default_scope('mmdet')
    return RetryUntilLabelled(
        [
            ColorJitter(),
            RandomFlip(prob=0.5),
            ScaleJitter(32, (0.1, 2.0)),
            PadAndCrop(32),
        ],
        **settings,
    )


def without_map(results):
    del results['gt_seg_map']
    return results


def test_the_whole_pipeline_drops_crowds():
    np.random.seed(0)
    pipeline = train_pipeline()
    counts = set()
    for _ in range(60):
        results = pipeline(sample())
        check_in_step(results)
        assert 2 not in results['gt_bboxes_labels']
        counts.add(len(results['gt_masks']))
    assert max(counts) == 3

    # With instances alone every result has one.
    for _ in range(60):
        assert len(pipeline(without_map(sample()))['gt_masks']) > 0


def test_an_image_of_crowds_is_tried_a_bounded_number_of_times():
    results = without_map(sample())
    results['gt_ignore_flags'][:] = True
    tries = []
    pipeline = RetryUntilLabelled([lambda r: tries.append(1) or r], max_tries=4)
    assert len(pipeline(results)['gt_masks']) == 0
    assert len(tries) == 4


@pytest.mark.parametrize(
    ('shape', 'size', 'expected'),
    [
        ((480, 640), 640, (480, 640)),
        ((333, 500), 640, (426, 640)),  # 333 x 1.28 = 426.24
        ((500, 375), 64, (64, 48)),
        ((1, 500), 16, (1, 16)),
        ((100, 100), (32, 64), (32, 32)),
    ],
)
def test_fit_inside_equals_pillow(shape, size, expected):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    results = FitInside(size)(dict(img=image, ori_shape=shape))
    assert results['img_shape'] == expected
    resized = Image.fromarray(image).resize(expected[::-1], Image.BILINEAR)
    np.testing.assert_array_equal(results['img'], np.asarray(resized))
    assert results['scale_factor'] == pytest.approx(
        (expected[1] / shape[1], expected[0] / shape[0])
    )
