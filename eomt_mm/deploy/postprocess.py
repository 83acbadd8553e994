"""Results from logits in NumPy, as `models.postprocess` and `models.windows` make them.

The formulas are explained there. Masks are finished one at a time, so that memory does
not grow with their number.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

INSTANCE_OFFSET = 1000  # a pixel of a panoptic map holds class + 1000 * instance
UNDECIDED = 2**16  # pixels between classes that are worked on at once

Size = tuple[int, int]
Fit = Callable[[np.ndarray], np.ndarray]


class Instances(NamedTuple):
    """Instance results of one photo, the surest first.

    Attributes:
        labels (np.ndarray): Classes, shape (N,) int64.
        scores (np.ndarray): Shape (N,), class score times mask score.
        masks (np.ndarray): Shape (N, H, W) bool.
        boxes (np.ndarray): Shape (N, 4), x1, y1, x2, y2 in pixels around the mask.
    """

    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray


def softmax(x: np.ndarray) -> np.ndarray:
    """Compute the softmax over the last axis."""
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Compute the sigmoid elementwise, in a form that does not overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def neighbours(length: int, source: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the two source pixels of each resized one, and the part of the second."""
    at = (np.arange(length) + 0.5) * (source / length) - 0.5
    at = at.clip(0, source - 1)
    first = at.astype(np.int64)
    part = (at - first).astype(np.float32)
    return first, np.minimum(first + 1, source - 1), part


def resize(x: np.ndarray, size: Size) -> np.ndarray:
    """Resize the last two axes bilinearly, as PyTorch's `interpolate` does."""
    for axis, length in zip((-2, -1), size, strict=True):
        first, second, part = neighbours(length, x.shape[axis])
        low = x.take(first, axis)
        part = part[:, None] if axis == -2 else part
        x = low + (x.take(second, axis) - low) * part
    return x


def class_scores(classes: np.ndarray, masks: np.ndarray, size: Size) -> np.ndarray:
    """Score classes and pixels (classes, H, W) of one window, whose size is given."""
    pixels = sigmoid(resize(masks, size)).reshape(len(masks), -1)
    shares = softmax(classes)[:, :-1]  # "no object" votes for none
    return (shares.T @ pixels).reshape(-1, *size)


def best_classes(scores: np.ndarray, size: Size) -> np.ndarray:
    """Find the class of each pixel once scores (classes, h, w) are resized, (H, W).

    Pixels whose four neighbours agree need no arithmetic: they are nearly all.
    """
    best = scores.argmax(0)
    agree = np.ones_like(best, bool)
    agree[:-1] &= best[:-1] == best[1:]
    agree[:, :-1] &= best[:, :-1] == best[:, 1:]
    agree[:-1, :-1] &= best[:-1, :-1] == best[1:, 1:]
    y, x = (neighbours(*sides) for sides in zip(size, best.shape, strict=True))
    result = np.where(agree, best, -1)[y[0]][:, x[0]]
    places = np.flatnonzero(result < 0)
    for start in range(0, len(places), UNDECIDED):
        row, col = np.divmod(places[start : start + UNDECIDED], size[1])
        upper, lower = (
            scores[:, line, x[0][col]] * (1 - x[2][col])
            + scores[:, line, x[1][col]] * x[2][col]
            for line in (y[0][row], y[1][row])
        )
        result[row, col] = (upper + (lower - upper) * y[2][row]).argmax(0)
    return result


def panoptic(
    classes: np.ndarray, masks: np.ndarray, fit: Fit, size: Size, meta: dict
) -> np.ndarray:
    """Give every pixel of a photo to at most one segment.

    Args:
        classes (np.ndarray): Class logits, shape (K, classes + 1).
        masks (np.ndarray): Mask logits, shape (K, h, w).
        fit (Callable): Brings one mask to the size of the photo.
        size (tuple[int, int]): That size, height and width in pixels.
        meta (dict): The file's metadata.

    Returns:
        np.ndarray: Shape (H, W) int64; `len(meta['classes'])` is void.
    """
    void, test = len(meta['classes']), meta['test']
    scores = softmax(classes)
    labels, scores = scores.argmax(-1), scores.max(-1)
    kept = np.flatnonzero((labels != void) & (scores > test['score_thr']))
    highest = np.full(size, -1, np.float32)
    owner, inside, areas = np.zeros(size, np.int32), np.zeros(size, bool), []
    for i, query in enumerate(kept):
        mask = sigmoid(fit(masks[query]))
        score, holds = mask * scores[query], mask >= 0.5
        wins = score > highest
        highest, owner = np.maximum(highest, score), np.where(wins, i, owner)
        inside = np.where(wins, holds, inside)
        areas.append(holds.sum())
    result, number = np.full(size, void), 0
    for i, area in enumerate(areas):
        owned = owner == i
        if not area or not owned.any() or owned.sum() / area < test['overlap_thr']:
            continue
        label = labels[kept[i]]
        if label < meta['num_things']:
            number += 1
            label = label + number * INSTANCE_OFFSET
        result[owned & inside] = label
    return result


def instance(
    classes: np.ndarray, masks: np.ndarray, fit: Fit, size: Size, meta: dict
) -> Instances:
    """Find the things of a photo, each with its mask; arguments as for `panoptic`."""
    num_classes = classes.shape[1] - 1
    scores = softmax(classes)[:, :-1].ravel()
    pairs = np.argsort(-scores, kind='stable')[: int(meta['test']['max_per_image'])]
    pairs = pairs[pairs % num_classes < meta['num_things']]
    queries, labels, scores = pairs // num_classes, pairs % num_classes, scores[pairs]
    found = {}
    for query in np.unique(queries):
        logits = fit(masks[query])
        mask = logits > 0
        quality = (sigmoid(logits) * mask).sum() / (mask.sum() + 1e-6)
        found[query] = mask, quality, _box(mask)
    scores = scores * np.array([found[q][1] for q in queries], np.float32)
    order = np.argsort(-scores, kind='stable')
    return Instances(
        labels[order],
        scores[order],
        np.array([found[q][0] for q in queries[order]], bool).reshape(-1, *size),
        np.array([found[q][2] for q in queries[order]]).reshape(-1, 4),
    )


def _box(mask: np.ndarray) -> list[int]:
    """Return corners x1, y1, x2, y2 around a mask (H, W); zeros if it is empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return [0, 0, 0, 0]
    return [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]
