"""Evaluators of confidence maps: unknown objects, and errors among known classes.

Nothing is kept of an image but counts, 1 MiB for each image set.
"""

from collections.abc import Sequence

import numpy as np
from mmengine import dist
from mmengine.evaluator import BaseMetric

from eomt_mm.errors import UserError
from eomt_mm.registry import METRICS

from .confidence import histogram, mean_iou, misclassification, unknown

VOID = 255


class _CountingMetric(BaseMetric):
    """Counts for each image set and for all images, summed over processes.

    Args:
        sets (dict[str, str], optional): Part of an image's path by name of its set.
            Images of none are left out. Defaults to all images in one pool.
        **kwargs: Those of `BaseMetric`.
    """

    def __init__(self, sets: dict[str, str] | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.sets = sets or {}
        if 'all' in self.sets:
            raise UserError(
                f"sets of {type(self).__name__} has 'all', which would count its "
                'images twice in the pool of all sets: give it another name'
            )
        self._reset()

    def _reset(self) -> None:
        self.counts: dict[str, tuple[np.ndarray, ...]] = {}
        self.seen = 0
        # The image seen last may be a sampler's padding: it is added when the next
        # one comes, or at the end if it is none.
        self.last: tuple[list[str], tuple[np.ndarray, ...]] | None = None

    def count(self, sample: dict) -> tuple[np.ndarray, ...]:
        """Arrays of counts of one image; those of a set are their sum."""
        raise NotImplementedError

    def scores(self, counts: tuple[np.ndarray, ...]) -> dict[str, float]:
        """Metrics of summed counts, as fractions."""
        raise NotImplementedError

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch."""
        for sample in data_samples:
            if 'confidence' not in sample:
                raise UserError(
                    f'{type(self).__name__} needs confidence maps: set '
                    "model.test_cfg.confidence='class_score' on a semantic model"
                )
            path = sample.get('img_path', '?')
            names = [name for name, part in self.sets.items() if part in path]
            self._add_last()
            self.seen += 1
            if names or not self.sets:
                self.last = ['all', *names], self.count(sample)

    def _add_last(self) -> None:
        if self.last is None:
            return
        names, new = self.last
        for name in names:
            old = self.counts.get(name)
            self.counts[name] = new if old is None else _sums(old, new)
        self.last = None

    def evaluate(self, size: int) -> dict[str, float]:
        """Sum up over all processes.

        Args:
            size (int): Images of the dataset, without a sampler's padding.

        Returns:
            dict[str, float]: In percent, `prefix/set/metric` for sets, `prefix/metric`
            for all of them.
        """
        # MMEngine's sampler deals images out in turn.
        place = (self.seen - 1) * dist.get_world_size() + dist.get_rank()
        if place < size:
            self._add_last()
        totals: dict[str, tuple[np.ndarray, ...]] = {}
        for counts in dist.all_gather_object(self.counts):
            for name, new in counts.items():
                old = totals.get(name)
                totals[name] = new if old is None else _sums(old, new)
        self._reset()
        scores = self.compute_metrics(totals)
        return {f'{self.prefix}/{name}': value for name, value in scores.items()}

    def compute_metrics(self, results: dict) -> dict[str, float]:
        """Name the metrics of summed counts, in percent."""
        if 'all' not in results:
            parts = f' with {" or ".join(self.sets.values())}' if self.sets else ''
            raise UserError(
                f'{type(self).__name__}: no image{parts} was evaluated; see '
                'test_dataloader and the sets of test_evaluator'
            )
        named = {}
        for name in ['all', *(name for name in self.sets if name in results)]:
            head = '' if name == 'all' else f'{name}/'
            for metric, value in self.scores(results[name]).items():
                named[f'{head}{metric}'] = round(100 * value, 4)
        return named


@METRICS.register_module()
class OODMetric(_CountingMetric):
    """AUROC, AUPRC and FPR95 of unknown objects, by 1 - confidence.

    `gt_sem_seg` has 0 for known objects, 1 for unknown ones and 255 for void.

    Args:
        sets (dict[str, str], optional): Part of an image's path by name of its set.
        **kwargs: Those of `BaseMetric`.
    """

    default_prefix = 'ood'

    def count(self, sample: dict) -> tuple[np.ndarray, ...]:
        """Histograms of known and of unknown pixels.

        Raises:
            UserError: Some label is none of 0, 1 and 255.
        """
        labels, confidence = _maps(sample)
        check_ood_labels(labels, sample.get('seg_map_path') or sample.get('img_path'))
        return histogram(confidence[labels == 0]), histogram(confidence[labels == 1])

    def scores(self, counts: tuple[np.ndarray, ...]) -> dict[str, float]:
        """See `unknown`."""
        return unknown(*counts)


@METRICS.register_module()
class ConfidenceMetric(_CountingMetric):
    """MIoU, ECE, AUROC, FPR95 and AUPR of right against wrong pixels.

    Args:
        sets (dict[str, str], optional): Part of an image's path by name of its set.
        **kwargs: Those of `BaseMetric`.
    """

    default_prefix = 'confidence'

    def count(self, sample: dict) -> tuple[np.ndarray, ...]:
        """Histograms of right and of wrong pixels, and the confusion matrix."""
        labels, confidence = _maps(sample)
        predicted = np.asarray(sample['pred_sem_seg']['data'][0].cpu())
        number = len(self.dataset_meta['classes'])
        path = sample.get('seg_map_path') or sample.get('img_path')
        return semantic_counts(labels, predicted, confidence, number, path)

    def scores(self, counts: tuple[np.ndarray, ...]) -> dict[str, float]:
        """See `misclassification` and `mean_iou`."""
        right, wrong, confusion = counts
        return dict(mIoU=mean_iou(confusion), **misclassification(right, wrong))


def semantic_counts(
    labels: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    number: int,
    path: object,
) -> tuple[np.ndarray, ...]:
    """Count right and wrong pixels of one image, void left out.

    Args:
        labels (np.ndarray): Classes, shape (H, W); 255 is void.
        predicted (np.ndarray): Classes, shape (H, W).
        confidence (np.ndarray): Shape (H, W), as `levels` takes it.
        number (int): Number of classes.
        path (object): Where the labels are from, for errors.

    Returns:
        tuple[np.ndarray, ...]: Histograms of confidence, shape (LEVELS,), where right
        and where wrong; confusion matrix (number, number), rows are the truth.

    Raises:
        UserError: A label or a prediction is none of the classes.
    """
    known = labels != VOID
    labels, predicted = labels[known].astype(int), predicted[known].astype(int)
    confidence, right = confidence[known], labels == predicted
    if len(labels) and max(labels.max(), predicted.max()) >= number:
        where = (
            f'label map {path}' if labels.max() >= number else f'prediction for {path}'
        )
        raise UserError(
            f'{where} has the class {max(labels.max(), predicted.max())}, expected 0 '
            f'to {number - 1}, and 255 for void'
        )
    confusion = np.bincount(number * labels + predicted, minlength=number**2)
    return (
        histogram(confidence[right]),
        histogram(confidence[~right]),
        confusion.reshape(number, number),
    )


def check_ood_labels(labels: np.ndarray, path: str | None) -> None:
    """Raise a UserError if a label is none of 0, 1 and 255."""
    others = sorted(set(np.unique(labels).tolist()) - {0, 1, VOID})
    if others:
        raise UserError(
            f'label map {path} has the value {others[0]}, expected 0 (known), '
            '1 (unknown) and 255 (void)'
        )


def _maps(sample: dict) -> tuple[np.ndarray, np.ndarray]:
    labels = np.asarray(sample['gt_sem_seg']['data'][0].cpu())
    confidence = np.asarray(sample['confidence']['data'][0].cpu())
    if labels.shape != confidence.shape:
        raise UserError(
            f'{sample.get("img_path")}: labels of shape {labels.shape}, confidence of '
            f'{confidence.shape}; both must have the size of the original image'
        )
    return labels, confidence


def _sums(
    first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, ...]:
    return tuple(a + b for a, b in zip(first, second, strict=True))
