"""Boxes of components against scipy.ndimage.label, mask by mask."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_postprocess import arguments, logits_of, make_case, random_case

from eomt_mm.errors import UserError
from eomt_mm.models.blocks import BLOCK_BYTES
from eomt_mm.models.boxes import boxes_of, check_box_from
from eomt_mm.models.postprocess import instance_result

OPTIONS = ['mask', 'largest_component', 1, 0.5, 0.2, 1e-6]


def plain_box(mask, box_from):
    """The box of one mask, component by component."""
    labels, number = ndimage.label(mask, np.ones((3, 3)))
    areas = [int((labels == i).sum()) for i in range(1, number + 1)]
    if not areas:
        return [0, 0, 0, 0]
    largest = areas.index(max(areas))
    if box_from == 'mask':
        kept = range(number)
    elif box_from == 'largest_component':
        kept = [largest]
    else:
        kept = [i for i in range(number) if areas[i] >= box_from * sum(areas)]
        kept = kept or [largest]
    ys, xs = np.nonzero(np.isin(labels, [i + 1 for i in kept]))
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def random_masks(seed):
    """Noise of any density, blobs, empty and full masks; some of one row or column."""
    rng = np.random.default_rng(seed)
    count, height, width = rng.integers(1, 6), *rng.integers(1, 24, 2)
    masks = rng.random((count, height, width)) < rng.choice([0.05, 0.3, 0.5, 0.9])
    if rng.random() < 0.3:
        masks = ndimage.gaussian_filter(rng.standard_normal(masks.shape), (0, 2, 2)) > 0
    for fill in (False, True):
        if rng.random() < 0.2:
            masks[rng.integers(count)] = fill
    return masks


@pytest.mark.parametrize('box_from', OPTIONS)
def test_same_as_scipy(box_from):
    several = 0
    for seed in range(300):
        masks = random_masks(seed)
        found = boxes_of(torch.from_numpy(masks), box_from)
        assert found.dtype == torch.int64
        expected = [plain_box(mask, box_from) for mask in masks]
        assert found.tolist() == expected, seed
        several += expected != boxes_of(torch.from_numpy(masks)).tolist()
    assert (several > 50) == (box_from in ('largest_component', 1, 0.5, 0.2))


def test_a_stray_pixel():
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[0, 4:9, 6:14] = True
    mask[0, 19, 29] = True
    assert boxes_of(mask).tolist() == [[6, 4, 30, 20]]
    for box_from in ('largest_component', 1, 0.1):
        assert boxes_of(mask, box_from).tolist() == [[6, 4, 14, 9]]
    assert boxes_of(mask, 0.02).tolist() == [[6, 4, 30, 20]]  # 1 of 41 pixels


def test_masks_side_by_side_do_not_touch():
    """The last row of a mask lies before the first row of the next in memory."""
    masks = torch.zeros(2, 3, 4, dtype=torch.bool)
    masks[0, 2, 1:3] = masks[1, 0, 1:3] = True
    masks[1, 2, 0] = True
    found = boxes_of(masks, 'largest_component').tolist()
    assert found == [[1, 2, 3, 3], [1, 0, 3, 1]]


def test_of_equal_components_the_first():
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 0, 4] = mask[0, 1, 0] = True
    assert boxes_of(mask, 'largest_component').tolist() == [[4, 0, 5, 1]]


def test_no_masks():
    none = torch.zeros(0, 4, 5, dtype=torch.bool)
    for box_from in OPTIONS:
        assert boxes_of(none, box_from).shape == (0, 4)


@pytest.mark.parametrize('block_bytes', [None, 1, 2000, BLOCK_BYTES])
def test_boxes_of_results_in_blocks(block_bytes):
    smaller = 0
    for seed in range(50):
        given = arguments(random_case(seed))
        found = instance_result(
            *given, block_bytes=block_bytes, box_from='largest_component'
        )
        expected = [plain_box(mask, 'largest_component') for mask in found.masks]
        assert found.boxes.tolist() == expected
        smaller += expected != instance_result(*given).boxes.tolist()
    assert smaller


def test_only_boxes_change():
    masks = torch.full((1, 8, 8), -6.0)
    masks[0, 1:4, 1:4] = masks[0, 7, 7] = 6.0
    given = arguments(make_case(logits_of([0]), masks))
    plain, found = instance_result(*given), instance_result(*given, box_from=0.5)
    assert torch.equal(plain.masks, found.masks)
    assert torch.equal(plain.scores, found.scores)
    assert plain.boxes[0].tolist() == [1, 1, 8, 8]
    assert found.boxes[0].tolist() == [1, 1, 4, 4]


@pytest.mark.parametrize('value', [0, -0.1, 1.01, float('nan'), True, 'box', None, [1]])
def test_bad_values(value):
    with pytest.raises(UserError, match='test_cfg.box_from is .*above 0 and at most 1'):
        check_box_from(value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_same_on_a_gpu():
    for seed in range(50):
        masks = torch.from_numpy(random_masks(seed))
        for box_from in OPTIONS:
            found = boxes_of(masks.cuda(), box_from)
            assert found.is_cuda
            assert torch.equal(found.cpu(), boxes_of(masks, box_from))
