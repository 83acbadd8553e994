"""Run lengths found where the masks are, against pycocotools' own."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_masks

from eomt_mm.run_lengths import encode_masks


def random_masks(seed):
    """A block of masks of one size: noise, stripes, empty, full, a pixel, a column."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(1, 40, 2)
    masks = np.zeros((generator.integers(1, 9), height, width), bool)
    for mask in masks:
        kind = generator.integers(7)
        if kind == 0:
            mask[:] = generator.random((height, width)) < generator.random()
        elif kind == 1:
            mask[:] = True
        elif kind == 2:
            mask[generator.integers(height), generator.integers(width)] = True
        elif kind == 3:
            mask[:, generator.integers(width)] = True
        elif kind == 4:
            mask[generator.integers(height)] = True
        elif kind == 5:
            top, left = generator.integers(height), generator.integers(width)
            mask[top:, left:] = True
    return torch.from_numpy(masks)


def check(count):
    encoded = 0
    for seed in range(count):
        masks = random_masks(seed)
        found = encode_masks(masks)
        assert len(found) == len(masks)
        for mask, runs in zip(masks, found, strict=True):
            theirs = coco_masks.encode(np.asfortranarray(mask.numpy().view(np.uint8)))
            assert runs == theirs
            assert runs[:, :].tolist() == mask.int().tolist()
        encoded += len(masks)
    assert encoded > count


def test_byte_for_byte_pycocotools():
    check(300)


@pytest.mark.campaign
def test_byte_for_byte_in_10_000_blocks():
    check(10_000)


def test_without_masks():
    assert encode_masks(torch.zeros(0, 4, 5, dtype=torch.bool)) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_device_finds_the_same_runs():
    for seed in range(30):
        masks = random_masks(seed)
        assert encode_masks(masks.cuda()) == encode_masks(masks)
