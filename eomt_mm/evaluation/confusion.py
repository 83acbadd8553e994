"""Which class is taken for which, pixel by pixel, for all three tasks."""

import numpy as np


def confusion(truth: np.ndarray, found: np.ndarray, count: int) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
        truth (np.ndarray): True classes, any shape; others than 0 to count - 1 are
            nothing.
        found (np.ndarray): Predicted classes of the same pixels.
        count (int): Number of classes.

    Returns:
        np.ndarray: Shape (count + 1, count + 1) int64, rows of truth; the last row and
        column are nothing.
    """
    pairs = [
        np.where((labels >= 0) & (labels < count), labels, count).astype(np.int64)
        for labels in (truth, found)
    ]
    cells = (count + 1) * pairs[0] + pairs[1]
    total = np.bincount(cells.ravel(), minlength=(count + 1) ** 2)
    return total.reshape(count + 1, count + 1)


def mean_iou(counts: np.ndarray) -> float:
    """Mean IoU over the classes that truth or prediction have.

    Args:
        counts (np.ndarray): Of :func:`confusion`. Pixels whose truth is nothing do not
            count.

    Returns:
        float: 0 to 1; NaN without a labelled pixel.
    """
    labelled = counts[:-1]
    right = np.diagonal(labelled)
    union = labelled.sum(1) + labelled[:, :-1].sum(0) - right
    shown = union > 0
    return float((right[shown] / union[shown]).mean()) if shown.any() else float('nan')


def shares(counts: np.ndarray) -> np.ndarray:
    """Rows in percent; NaN where a class does not occur.

    Args:
        counts (np.ndarray): Of :func:`confusion`.
    """
    rows = counts.sum(1, keepdims=True)
    return 100 * np.divide(
        counts, rows, out=np.full(counts.shape, np.nan), where=rows > 0
    )
