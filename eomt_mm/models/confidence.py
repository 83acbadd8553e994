"""How sure a semantic prediction is of each pixel, from 0 (unknown) to 1 (sure).

Each measure is a function of the averaged class scores alone, which are sums over
queries of class probability times mask probability. A pixel that no query claims has
low scores for all classes. All measures are monotone in the published ones, so that
rankings (AUROC, AUPRC, FPR) are those of the publications; where one has no upper
bound, it is brought to [0, 1] as its docstring says.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from eomt_mm.errors import UserError

BAND = 2**22  # scores that are worked on at once: 16 MiB


def class_score(scores: Tensor) -> Tensor:
    """Return the score of the winning class, clipped to 1.

    The paper's confidence, in the sense of BRAVO (arXiv 2409.15107).

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...).
    """
    return scores.amax(-1).clamp_(0, 1)


def max_softmax(scores: Tensor) -> Tensor:
    """Return the largest softmax of the scores (Hendrycks, arXiv 1610.02136).

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...).
    """
    return (scores.amax(-1) - scores.logsumexp(-1)).exp_()


def entropy(scores: Tensor) -> Tensor:
    """Return 1 - H / log(classes), H being the entropy of the softmax of the scores.

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...).
    """
    log_shares = scores.log_softmax(-1)
    nats = -(log_shares.exp() * log_shares).sum(-1)
    return (1 - nats / math.log(scores.shape[-1])).clamp_(0, 1)


def energy(scores: Tensor) -> Tensor:
    """Return the negative free energy, logsumexp (Liu, arXiv 2010.03759).

    It is log(classes) where all scores are 0, which becomes 0; log(classes) + 1, where
    all are 1, becomes 1.

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...).
    """
    return (scores.logsumexp(-1) - math.log(scores.shape[-1])).clamp_(0, 1)


def claimed(scores: Tensor) -> Tensor:
    """Return 1 - exp(RbA), RbA = -sum tanh(score) (Nayal, arXiv 2211.14293).

    Low where all classes reject the pixel.

    Args:
        scores (Tensor): Shape (..., classes).

    Returns:
        Tensor: Shape (...).
    """
    return -torch.expm1(-scores.tanh().sum(-1))


CONFIDENCES: dict[str, Callable[[Tensor], Tensor]] = {
    'class_score': class_score,
    'max_softmax': max_softmax,
    'entropy': entropy,
    'energy': energy,
    'rba': claimed,
}


def check_confidence(name: str | None) -> None:
    """Raise a UserError if there is no such measure; None asks for none."""
    if name is not None and name not in CONFIDENCES:
        raise UserError(
            f'test_cfg.confidence is {name!r}, expected None or one of '
            f'{", ".join(CONFIDENCES)}'
        )


def confidence_map(scores: Tensor, name: str, size: tuple[int, int]) -> Tensor:
    """Measure the confidence at each pixel of the original image.

    The measure is taken at the size of the scores, in bands of rows, and one map is
    resized: no scores of all classes at the original size are ever in memory.

    Args:
        scores (Tensor): Averaged class scores, shape (classes, h, w).
        name (str): A key of `CONFIDENCES`.
        size (tuple[int, int]): Height and width of the original in pixels.

    Returns:
        Tensor: Shape (H, W) fp32, from 0 to 1.
    """
    pixels = scores.permute(1, 2, 0)
    rows = max(1, BAND // (pixels.shape[1] * pixels.shape[2]))
    bands = [CONFIDENCES[name](band.float()) for band in pixels.split(rows)]
    found = torch.cat(bands)
    if tuple(found.shape) == tuple(size):
        return found
    return F.interpolate(found[None, None], size, mode='bilinear')[0, 0]
