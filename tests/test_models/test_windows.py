"""Windows against plain transcriptions of the paper's inference."""

import pytest
import torch
import torch.nn.functional as F

from eomt_mm.models.windows import WindowAverage, class_map, resized_argmax
from eomt_mm.sizes import window_starts


@pytest.mark.parametrize(
    ('length', 'size', 'starts'),
    [
        (683, 512, [0, 171]),  # 480 x 640 at a short side of 512
        (2048, 1024, [0, 1024]),  # Cityscapes: no overlap
        (512, 512, [0]),
        (513, 512, [0, 1]),
        (1200, 512, [0, 344, 688]),
    ],
)
def test_starts(length, size, starts):
    assert window_starts(length, size) == starts


@pytest.mark.parametrize('size', [512, 640, 1024])
def test_windows_cover_every_pixel_of_every_length(size):
    """The float product alone leaves the last column of some lengths uncovered."""
    for length in range(size, 20 * size):
        starts = window_starts(length, size)
        assert starts[0] == 0
        assert starts[-1] + size == length
        gaps = [b - a for a, b in zip(starts, starts[1:], strict=False)]
        assert all(0 < gap <= size for gap in gaps), length
        assert not gaps or max(gaps) - min(gaps) <= 1, length  # even


def test_class_map():
    torch.manual_seed(0)
    classes, masks = torch.randn(5, 4), torch.randn(5, 8, 8)
    big = F.interpolate(masks[None], (32, 32), mode='bilinear')[0].sigmoid()
    expected = torch.einsum('qc,qhw->chw', classes.softmax(-1)[:, :3], big)
    torch.testing.assert_close(class_map(classes, masks, (32, 32)), expected)


def test_average_of_overlapping_windows():
    torch.manual_seed(0)
    average = WindowAverage((10, 25), (10, 10))
    assert average.corners == [(0, 0), (0, 7), (0, 15)]
    scores = torch.randn(3, 2, 10, 10)
    total, count = torch.zeros(2, 10, 25), torch.zeros(10, 25)
    for i, (top, left) in enumerate(average.corners):
        average.add(i, scores[i])
        total[:, top : top + 10, left : left + 10] += scores[i]
        count[top : top + 10, left : left + 10] += 1
    torch.testing.assert_close(average.mean(), total / count)


def test_a_grid_of_windows_where_both_sides_are_longer():
    average = WindowAverage((15, 25), (10, 10))
    assert len(average.corners) == 6
    image = torch.arange(15 * 25).view(1, 15, 25).float()
    for i in range(6):
        average.add(i, average.crop(image, i))
    torch.testing.assert_close(average.mean(), image)


@pytest.mark.parametrize('size', [(97, 61), (20, 30), (7, 90), (1, 300), (40, 56)])
@pytest.mark.parametrize('block_bytes', [1, 2800, 4 * 10**9])
def test_banded_resizing_gives_the_same_classes(size, block_bytes):
    torch.manual_seed(0)
    scores = torch.randn(5, 40, 56)
    expected = F.interpolate(scores[None], size, mode='bilinear')[0].argmax(0)
    assert torch.equal(resized_argmax(scores, size, block_bytes), expected)


def test_between_pixels_of_one_class_nothing_is_resized(monkeypatch):
    """Smooth maps: the classes are those of interpolation, near borders alone."""
    torch.manual_seed(0)
    coarse = torch.randn(1, 7, 5, 6)
    scores = F.interpolate(coarse, (50, 60), mode='bicubic')[0]
    expected = F.interpolate(scores[None], (301, 407), mode='bilinear')[0].argmax(0)
    resized = []
    lerp = torch.lerp

    def counting(start, end, weight):
        resized.append(start.shape[1])
        return lerp(start, end, weight)

    monkeypatch.setattr(torch, 'lerp', counting)
    assert torch.equal(resized_argmax(scores, (301, 407)), expected)
    assert 0 < sum(resized) < 3 * 0.25 * expected.numel()
