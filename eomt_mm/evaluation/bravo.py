"""Submissions to BRAVO: their PNG files, whether all are there, and their metrics.

Every pixel counts here; the challenge's server samples 100,000 pixels of each image
for the curves, so that its figures differ in the last digits.
"""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from eomt_mm.datasets.bravo import SUBSETS, images_of
from eomt_mm.errors import UserError
from eomt_mm.files import atomic_path

from .confidence import harmonic_mean, histogram, levels, mean_iou, misclassification
from .confidence import unknown as unknown_scores
from .ood import VOID, check_ood_labels, semantic_counts

CLASSES = 19


def pair_of(out: Path, subset: str, base: str) -> tuple[Path, Path]:
    """Return the paths of prediction and confidence of an image.

    Args:
        out (Path): Root of the submission.
        subset (str): Name of the image's subset.
        base (str): Path of the image below the root, without suffix.
    """
    stem = SUBSETS[subset].stem
    return out / f'{base}{stem}_pred.png', out / f'{base}{stem}_conf.png'


def save_pair(
    pair: tuple[Path, Path], predicted: np.ndarray, confidence: np.ndarray
) -> None:
    """Write prediction and confidence of an image, each file whole or not at all.

    Args:
        pair (tuple[Path, Path]): Paths, as `pair_of` returns them.
        predicted (np.ndarray): Train ids, shape (H, W).
        confidence (np.ndarray): Confidence from 0 to 1, shape (H, W).
    """
    arrays = predicted.astype(np.uint8), levels(confidence)
    for path, array in zip(pair, arrays, strict=True):
        with atomic_path(path) as partial:
            Image.fromarray(array).save(partial)


def check_complete(root: Path, out: Path, others: set[str], partly=False) -> None:
    """Check that a submission has the files of each image, and no others.

    Args:
        root (Path): Root of the images.
        out (Path): Root of the submission.
        others (set[str]): Names of files at the top of `out` that belong to no image.
        partly (bool): Whether files may be missing. Defaults to False.

    Raises:
        UserError: If a file is missing, or there is one too many.
    """
    wanted = {path for n, _, base in images_of(root) for path in pair_of(out, n, base)}
    found = {path for path in out.rglob('*') if path.is_file()}
    found -= {out / name for name in others}
    # A killed call leaves these; the next one overwrites them.
    found = {path for path in found if not path.name.startswith('.partial-')}
    missing, extra = wanted - found, found - wanted
    if missing and not partly:
        raise UserError(
            f'{len(missing)} of {len(wanted)} files are missing in {out}, the first is '
            f'{min(missing)}: call the tool with the checkpoint again to go on'
        )
    if extra:
        raise UserError(
            f'{min(extra)} belongs to no image below {root} ({len(extra)} such files): '
            'move them away'
        )


def evaluate(root: Path, out: Path, truth: Path) -> dict[str, float]:
    """Measure a submission.

    Args:
        root (Path): Root of the images.
        out (Path): Root of a complete submission.
        truth (Path): Root of the ground truth.

    Returns:
        dict[str, float]: Fractions: `SUBSET_METRIC` for each subset that is there,
        `SUBSET_hmean`, the harmonic mean of these, and the harmonic means `semantic`,
        `ood` and `bravo` over all subsets. An error counts as 1 - error in a mean.

    Raises:
        UserError: If a file is missing, or its size, mode or values are wrong.
    """
    counts: dict[str, list[np.ndarray]] = {}
    for name, path, base in images_of(root):
        with Image.open(root / path) as photo:
            size = photo.size
        new = _counts_of(name, base, out, truth, size)
        old = counts.get(name)
        counts[name] = [a + b for a, b in zip(old, new, strict=True)] if old else new
    results: dict[str, float] = {}
    goodness = dict(semantic=[], ood=[])
    for name, (right, wrong, confusion, inside, outside) in counts.items():
        subset, scores = SUBSETS[name], {}
        if subset.semantic:
            scores['semantic'] = dict(
                mIoU=mean_iou(confusion), **misclassification(right, wrong)
            )
        if subset.ood:
            found = unknown_scores(inside, outside)
            scores['ood'] = {f'{key}_ood': value for key, value in found.items()}
        for kind, named in scores.items():
            results |= {f'{name}_{key}': value for key, value in named.items()}
            goodness[kind] += [_goodness(key, value) for key, value in named.items()]
        means = [_goodness(k, v) for named in scores.values() for k, v in named.items()]
        results[f'{name}_hmean'] = harmonic_mean(means)
    for kind, values in goodness.items():
        results[kind] = harmonic_mean(values)
    results['bravo'] = harmonic_mean([results['semantic'], results['ood']])
    return results


def _goodness(metric: str, value: float) -> float:
    """Return a score for a metric: 1 - error where it is an error."""
    return 1 - value if metric.startswith(('ECE', 'FPR95')) else value


def _counts_of(
    name: str, base: str, out: Path, truth: Path, size: tuple[int, int]
) -> list[np.ndarray]:
    """Count the pixels of one image.

    Returns:
        list[np.ndarray]: Histograms of the confidence of right and wrong pixels, the
        confusion matrix, and histograms of known and unknown pixels.
    """
    subset = SUBSETS[name]
    pred_path, conf_path = pair_of(out, name, base)
    predicted = _read(pred_path, 'L', size)
    confidence = _read(conf_path, 'I;16', size)
    labels = _read(truth / f'{base}{subset.labels}', 'L', size)
    mask = _read(truth / f'{base}{subset.mask}', 'L', size)
    known = labels != VOID
    if subset.semantic:
        source = truth / f'{base}{subset.labels}'
        semantic = semantic_counts(labels, predicted, confidence, CLASSES, source)
    else:  # the subset's label maps are placeholders
        empty = histogram(confidence[:0])
        semantic = empty, empty, np.zeros((CLASSES, CLASSES), int)
        check_ood_labels(mask, truth / f'{base}{subset.mask}')
        known = known & (mask != VOID)
    valid = mask == 0
    return [
        *semantic,
        histogram(confidence[known & valid]),
        histogram(confidence[known & ~valid]),
    ]


def _read(path: Path, mode: str, size: tuple[int, int]) -> np.ndarray:
    try:
        with Image.open(path) as file:
            if file.mode != mode or file.size != size:
                raise UserError(
                    f'{path} is {file.mode} of {file.size[0]} x {file.size[1]} pixels, '
                    f'expected {mode} of {size[0]} x {size[1]}'
                )
            array = np.array(file)
    except FileNotFoundError as error:
        raise UserError(f'{path} is missing: each image has one') from error
    except UnidentifiedImageError as error:
        raise UserError(f'{path} is not an image: write it again') from error
    return array.astype(np.uint16) if mode == 'I;16' else array
