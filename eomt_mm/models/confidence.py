"""How sure a semantic prediction is of each pixel, from 0 (unknown) to 1 (sure).

Each measure is a published function of the averaged class scores alone, which are sums
over queries of class probability times mask probability. A pixel that no query claims
has low scores for all classes. One rule brings all measures to [0, 1], `to_unit`; it is
monotone, so that rankings (AUROC, AUPRC, FPR) are those of the publications.
"""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from eomt_mm.errors import UserError

from .blocks import BAND, BLOCK_BYTES

KNEE = 31 / 32
# What a measure takes at its peak for each score: fp32, itself and four more like it.
BYTES_PER_SCORE = 20


def class_score(scores: Tensor) -> Tensor:
    """Return the score of the winning class.

    The paper's confidence, in the sense of BRAVO (arXiv 2409.15107).

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...), from 0; above 1 where several queries claim a pixel.
    """
    return scores.amax(-1)


def max_softmax(scores: Tensor) -> Tensor:
    """Return the largest softmax of the scores (Hendrycks, arXiv 1610.02136).

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...), from 1 / classes to 1.
    """
    return (scores.amax(-1) - scores.logsumexp(-1)).exp_()


def entropy(scores: Tensor) -> Tensor:
    """Return log(classes) - H, H being the entropy of the softmax of the scores.

    The constant lets a flat softmax be 0, and small differences survive in fp32. The
    entropy is in nats.

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...), from 0 to log(classes).
    """
    log_shares = scores.log_softmax(-1)
    shares = log_shares.exp()
    return shares.mul_(log_shares.add_(math.log(scores.shape[-1]))).sum(-1)


def energy(scores: Tensor) -> Tensor:
    """Return the negative free energy less log(classes) (Liu, arXiv 2010.03759).

    That is logsumexp - log(classes), as the logarithm of a mean, which keeps small
    differences in fp32.

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...), from 0.
    """
    return scores.expm1().mean(-1).log1p_()


def negative_rba(scores: Tensor) -> Tensor:
    """Return -RbA, the sum of tanh(score) (Nayal, arXiv 2211.14293).

    Low where all classes reject the pixel.

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...), from 0 to the number of classes.
    """
    return scores.tanh().sum(-1)


CONFIDENCES: dict[str, Callable[[Tensor], Tensor]] = {
    'class_score': class_score,
    'max_softmax': max_softmax,
    'entropy': entropy,
    'energy': energy,
    'rba': negative_rba,
}


def check_confidence(name: str | None) -> None:
    """Raise a UserError if there is no such measure; None asks for none."""
    if name is not None and name not in CONFIDENCES:
        raise UserError(
            f'test_cfg.confidence is {name!r}, expected None or one of '
            f'{", ".join(CONFIDENCES)}'
        )


def to_unit(values: Tensor, name: str, classes: int) -> Tensor:
    """Bring a measure to [0, 1) by a rule that never ties what differs.

    Let x be 0 for a pixel that no class claims (all scores 0) and 1 for one that a
    single class claims wholly (a score of 1 among 0), linear in the measure. Up to
    31/32 confidence is x. Above it is 1 - 1 / (1024 x - 960), which goes on smoothly
    and stays below 1 however many queries claim the pixel: x = 1 becomes 63/64.

    Args:
        values (Tensor): What the measure returns, any shape, fp32; overwritten.
        name (str): A key of `CONFIDENCES`.
        classes (int): Number of classes.

    Returns:
        Tensor: The same shape.
    """
    low, high = _ends(name, classes)
    x = values.sub_(low).div_(high - low).clamp_(min=0)
    # Clamped, so that the unused branch stays finite.
    above = 1 - (1 - KNEE) ** 2 / (x.clamp(min=KNEE) + (1 - 2 * KNEE))
    return torch.where(x > KNEE, above, x)


@functools.cache
def _ends(name: str, classes: int) -> tuple[float, float]:
    """Return a measure where no class claims a pixel, and where one does wholly."""
    ends = torch.zeros(2, classes, dtype=torch.float64)
    ends[1, 0] = 1
    low, high = CONFIDENCES[name](ends).tolist()
    return low, high


def confidence_map(
    scores: Tensor,
    name: str,
    size: tuple[int, int],
    block_bytes: int | None = None,
) -> Tensor:
    """Measure the confidence at each pixel of the original image.

    The measure is taken at the size of the scores, in bands of rows, and one map is
    resized: besides the map there is never more than a band in memory.

    Args:
        scores (Tensor): Averaged class scores, shape (classes, h, w).
        name (str): A key of `CONFIDENCES`.
        size (tuple[int, int]): Height and width of the original in pixels.
        block_bytes (int, optional): Memory that a band may take; one row is always
            taken. Defaults to what stays in the cache of a CPU, and
            `blocks.BLOCK_BYTES` on other devices.

    Returns:
        Tensor: Shape (H, W) fp32, from 0 to 1.
    """
    classes, height, width = scores.shape
    if block_bytes is None:
        block_bytes = 4 * BAND if scores.device.type == 'cpu' else BLOCK_BYTES
    rows = max(1, block_bytes // (BYTES_PER_SCORE * classes * width))
    found = torch.empty(height, width, dtype=torch.float32, device=scores.device)
    pixels = scores.permute(1, 2, 0)
    for band, place in zip(pixels.split(rows), found.split(rows), strict=True):
        values = CONFIDENCES[name](band.float())
        place.copy_(to_unit(values, name, classes))
    if tuple(found.shape) == tuple(size):
        return found
    return F.interpolate(found[None, None], size, mode='bilinear')[0, 0]
