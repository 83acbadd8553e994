"""Metrics of confidence from two histograms, without a list of all pixels.

Confidence in [0, 1] falls into 65,536 levels of equal width, those of a 16-bit PNG
(BRAVO, arXiv 2409.15107). What is measured depends on the counts at each level alone;
pixels of one level are tied. Definitions are those of scikit-learn: `roc_auc_score`,
`average_precision_score`, and the first point of `roc_curve` at a true-positive rate
of 95 % or more. What is undefined, for want of one of two kinds of pixels, is NaN.
"""

import numpy as np

from eomt_mm.errors import UserError

LEVELS = 65536
ECE_BINS = 15


def levels(confidence: np.ndarray) -> np.ndarray:
    """Bring confidence to its level.

    Args:
        confidence (np.ndarray): Any shape, float from 0 to 1 or uint16 levels.

    Returns:
        np.ndarray: The same shape, integers, min(floor(65536 c), 65535).

    Raises:
        UserError: Some confidence is not a number from 0 to 1.
    """
    if confidence.dtype == np.uint16:
        return confidence
    if not (confidence.size == 0 or (confidence.min() >= 0 and confidence.max() <= 1)):
        raise UserError(
            f'confidence from {confidence.min()} to {confidence.max()}, expected 0 to '
            '1: the model may have diverged, take an earlier checkpoint'
        )
    scaled = np.floor(confidence.astype(np.float64) * LEVELS)
    return np.minimum(scaled, LEVELS - 1).astype(np.uint16)


def histogram(confidence: np.ndarray) -> np.ndarray:
    """Count the pixels at each level.

    Args:
        confidence (np.ndarray): As `levels` takes it.

    Returns:
        np.ndarray: Shape (LEVELS,) int64.
    """
    return np.bincount(levels(confidence).ravel(), minlength=LEVELS)


def curve(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count what lies at or above each level, from the highest level down.

    Args:
        positive (np.ndarray): Pixels to be found at each level of the score, ascending.
        negative (np.ndarray): All others.

    Returns:
        tuple[np.ndarray, np.ndarray]: True and false positives, at levels that occur.
    """
    occurs = (positive + negative)[::-1] > 0
    return positive[::-1].cumsum()[occurs], negative[::-1].cumsum()[occurs]


def ranking(positive: np.ndarray, negative: np.ndarray) -> dict[str, float]:
    """Measure how well a score tells positive pixels from negative ones.

    Args:
        positive (np.ndarray): Pixels to be found at each level of the score, ascending.
        negative (np.ndarray): All others.

    Returns:
        dict[str, float]: `AUROC`, `AUPRC` and `FPR95` as fractions.
    """
    found, false = curve(positive, negative)
    result = dict(AUROC=np.nan, AUPRC=np.nan, FPR95=np.nan)
    if len(found) == 0 or found[-1] == 0:
        return result
    recall = found / found[-1]
    result['AUPRC'] = float(np.diff(recall, prepend=0) @ (found / (found + false)))
    if false[-1] > 0:
        rate = false / false[-1]
        between = (recall + np.r_[0, recall[:-1]]) / 2
        result['AUROC'] = float(np.diff(rate, prepend=0) @ between)
        result['FPR95'] = float(rate[np.searchsorted(recall, 0.95)])
    return result


def calibration_error(right: np.ndarray, wrong: np.ndarray) -> float:
    """Return the expected calibration error in 15 bins of equal width.

    Args:
        right (np.ndarray): Correctly classified pixels at each level.
        wrong (np.ndarray): All others.

    Returns:
        float: Mean over pixels of |accuracy - mean confidence| of their bin, as a
        fraction; a level counts as its centre.
    """
    counts = right + wrong
    if counts.sum() == 0:
        return float('nan')
    centres = (np.arange(LEVELS) + 0.5) / LEVELS
    starts = np.linspace(0, LEVELS, ECE_BINS + 1).round().astype(int)[:-1]
    gaps = np.add.reduceat(right - counts * centres, starts)
    return float(np.abs(gaps).sum() / counts.sum())


def misclassification(right: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Measure how well confidence tells right pixels from wrong ones.

    Args:
        right (np.ndarray): Correctly classified pixels at each level of confidence.
        wrong (np.ndarray): All others.

    Returns:
        dict[str, float]: `ECE`, `AUROC`, `FPR95`, `AUPR_success` and `AUPR_error`.
    """
    success = ranking(right, wrong)
    return dict(
        ECE=calibration_error(right, wrong),
        AUROC=success['AUROC'],
        FPR95=success['FPR95'],
        AUPR_success=success['AUPRC'],
        AUPR_error=ranking(wrong[::-1], right[::-1])['AUPRC'],
    )


def unknown(inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """Measure how well 1 - confidence finds unknown objects.

    Args:
        inside (np.ndarray): Pixels of known objects at each level of confidence.
        outside (np.ndarray): Pixels of unknown ones.

    Returns:
        dict[str, float]: `AUROC`, `AUPRC` and `FPR95`.
    """
    return ranking(outside[::-1], inside[::-1])


def mean_iou(confusion: np.ndarray) -> float:
    """Return the mean intersection over union of the classes that occur.

    Args:
        confusion (np.ndarray): Shape (classes, classes), rows are the truth.

    Returns:
        float: A fraction; NaN without any pixel.
    """
    hits = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hits
    occurs = union > 0
    return float((hits[occurs] / union[occurs]).mean()) if occurs.any() else np.nan


def harmonic_mean(values: list[float]) -> float:
    """Return the harmonic mean of fractions; NaN among them gives NaN, 0 gives 0."""
    numbers = np.array(values, float)
    if len(numbers) == 0 or np.isnan(numbers).any():
        return float('nan')
    return 0.0 if (numbers == 0).any() else float(1 / (1 / numbers).mean())
