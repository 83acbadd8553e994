"""Submissions to BRAVO: their PNG files, whether all are there, and their metrics.

Definitions and names are those of the challenge's toolkit: semantic metrics count valid
pixels alone, those of unknown objects all that are not void. Every pixel counts; the
challenge's server samples 100,000 pixels of each image for the curves, so that its
figures differ in the last digits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from eomt_mm.datasets.bravo import PAIR, SUBSETS, images_of
from eomt_mm.errors import UserError
from eomt_mm.files import atomic_path

from .confidence import harmonic_mean, histogram, levels, mean_iou, misclassification
from .confidence import unknown as unknown_scores
from .ood import VOID, check_ood_labels, semantic_counts

CLASSES = 19
# The toolkit's names.
SEMANTIC_NAMES = dict(
    mIoU='miou',
    ECE='ece',
    AUROC='auroc',
    FPR95='fpr95',
    AUPR_success='auprc_success',
    AUPR_error='auprc_error',
)


def pair_of(out: Path, subset: str, base: str) -> tuple[Path, Path]:
    """Return the paths of prediction and confidence of an image.

    Args:
        out (Path): Root of the submission.
        subset (str): Name of the image's subset.
        base (str): Path of the image below the root, without suffix.
    """
    pred, conf = (out / f'{base}{SUBSETS[subset].stem}{ending}' for ending in PAIR)
    return pred, conf


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
    # What a killed call left is written over; a lock is hidden, too.
    found = {path for path in found if not path.name.startswith(('.partial-', '.lock'))}
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
        dict[str, float]: Fractions of each subset that is there, `SUBSET_metric_valid`
        and `SUBSET_metric_ood`, `SUBSET_hmean` of these, `semantic_hmean` and
        `ood_hmean` of all subsets, and `bravo_index`, the harmonic mean of the two.
        Those of errors count in a mean as 1 - error.

    Raises:
        UserError: If a file is missing, or its size, mode or values are wrong.
    """
    counts: dict[str, list[np.ndarray]] = {}
    for name, path, base in images_of(root):
        with _opened(root / path) as photo:
            size = photo.size
        new = _counts_of(name, base, out, truth, size)
        old = counts.get(name)
        counts[name] = [a + b for a, b in zip(old, new, strict=True)] if old else new
    results: dict[str, float] = {}
    for name, (right, wrong, confusion, inside, outside) in counts.items():
        scores: dict[str, float] = {}
        if SUBSETS[name].semantic:
            found = dict(mIoU=mean_iou(confusion), **misclassification(right, wrong))
            scores = {f'{SEMANTIC_NAMES[k]}_valid': v for k, v in found.items()}
        if SUBSETS[name].ood:
            found = unknown_scores(inside, outside)
            scores |= {f'{k.lower()}_ood': v for k, v in found.items()}
        results |= {f'{name}_{key}': value for key, value in scores.items()}
    means = {
        f'{name}_hmean': _mean_of(results, lambda key, n=name: key.startswith(f'{n}_'))
        for name in counts
    }
    means['semantic_hmean'] = _mean_of(results, lambda key: key.endswith('_valid'))
    means['ood_hmean'] = _mean_of(results, lambda key: key.endswith('_ood'))
    means['bravo_index'] = harmonic_mean([means['semantic_hmean'], means['ood_hmean']])
    return results | means


def _mean_of(results: dict[str, float], wanted: Callable[[str], bool]) -> float:
    """Harmonic mean of some results; the lower an error, the better."""
    return harmonic_mean(
        [
            1 - value if '_ece_' in key or '_fpr95_' in key else value
            for key, value in results.items()
            if wanted(key)
        ]
    )


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
    source = truth / f'{base}{subset.labels}'
    labels = _read(source, 'L', size)
    mask = _read(truth / f'{base}{subset.mask}', 'L', size)
    known = labels != VOID
    if not subset.semantic:  # its maps are placeholders
        check_ood_labels(mask, truth / f'{base}{subset.mask}')
        known &= mask != VOID
        labels = np.full_like(labels, VOID)
    valid = mask == 0
    labels = np.where(valid, labels, VOID)
    return [
        *semantic_counts(labels, predicted, confidence, CLASSES, source),
        histogram(confidence[known & valid]),
        histogram(confidence[known & ~valid]),
    ]


def _read(path: Path, mode: str, size: tuple[int, int]) -> np.ndarray:
    """Read a PNG file of the given kind, width and height."""
    with _opened(path) as file:
        if file.mode != mode or file.size != size:
            raise UserError(
                f'{path} is {file.mode} of {file.size[0]} x {file.size[1]} pixels, '
                f'expected {mode} of {size[0]} x {size[1]}'
            )
        array = np.array(file)
    return array.astype(np.uint16) if mode == 'I;16' else array


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image; raise a UserError if it is missing or turns out to be broken."""
    try:
        with Image.open(path) as file:
            yield file
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f'{path} is missing: it belongs to an image') from error
    except (OSError, SyntaxError, ValueError) as error:  # all that Pillow raises
        raise UserError(
            f'{path} cannot be read ({error}): remove it and get it again, a '
            'prediction with the call that wrote it'
        ) from error
