"""Comparison of the results of contenders."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eomt_mm.models.postprocess import Instances

# Largest difference of fp32 logits, as a part of the largest value.
ROUNDING = 1e-5
# The same of gradients, which are sums over many more numbers.
GRADIENT_ROUNDING = 1e-3
# Pixels that may change where class scores are all but equal.
FLIPPED = 1e-4


class TrainingStep(NamedTuple):
    """Results of a training step.

    Attributes:
        prediction (tuple[Tensor, Tensor]): Class logits and mask logits, the last ones.
        gradients (list[Tensor]): Gradients of the loss; empty if the loss differs.
    """

    prediction: tuple[Tensor, Tensor]
    gradients: list[Tensor]


class Agreement(NamedTuple):
    """Result of a comparison.

    Attributes:
        text (str): Cell of a table.
        same (bool): Whether the results are equal, or equal but for rounding.
    """

    text: str
    same: bool


@torch.no_grad()
def compare(result: object, reference: object) -> Agreement:
    """Compare a result with that of another contender.

    Args:
        result (object): Class logits and mask logits, a map of ids or several,
            `Instances`, a `TrainingStep`, or the path of a PNG file with ids.
        reference (object): Result of the other contender.

    Returns:
        Agreement: Agreement of the worst part.
    """
    if isinstance(reference, Path):
        result, reference = _pixels(result), _pixels(reference)
    if isinstance(reference, Instances):
        return _compare_instances(result, reference)
    if isinstance(reference, TrainingStep):
        return _compare_steps(result, reference)
    if isinstance(reference, Tensor):
        return _compare_maps([result], [reference])
    if isinstance(reference, list):
        return _compare_maps(result, reference)
    return _compare_logits(result, reference)


def _pixels(path: Path) -> Tensor:
    """Read the ids in a PNG file, shape (H, W)."""
    with Image.open(path) as file:
        pixels = torch.from_numpy(np.array(file)).long()
    # As panoptic files have them: R + 256 G + 65536 B.
    return pixels if pixels.ndim == 2 else pixels @ torch.tensor([1, 256, 65536])


def _compare_logits(result: tuple, reference: tuple) -> Agreement:
    gap = _largest_gap(result, reference)
    if gap == 0:
        return Agreement('equal', True)
    if gap != gap:
        return Agreement('not numbers', False)
    signs = [(masks[-1] > 0) for masks in (result, reference)]
    flipped = float((signs[0] != signs[1]).float().mean())
    text = f'within {gap:.0e}'
    if gap > ROUNDING:
        text += f', {flipped:.2%} of mask signs differ'
    return Agreement(text, gap <= ROUNDING)


def _largest_gap(results: Sequence[Tensor], references: Sequence[Tensor]) -> float:
    """Return the largest difference over the largest value; NaN if any is NaN."""
    gaps = [
        (result.float() - reference.float()).abs().max() / reference.float().abs().max()
        for result, reference in zip(results, references, strict=True)
        if not torch.equal(result, reference)
    ]
    return float(torch.stack(gaps).max()) if gaps else 0.0


def _compare_steps(result: TrainingStep, reference: TrainingStep) -> Agreement:
    text, same = _compare_logits(result.prediction, reference.prediction)
    if not (result.gradients and reference.gradients):
        return Agreement(text, same)
    gap = _largest_gap(result.gradients, reference.gradients)
    return Agreement(
        f'{text}, gradients within {gap:.0e}', same and gap <= GRADIENT_ROUNDING
    )


def _compare_maps(result: list[Tensor], reference: list[Tensor]) -> Agreement:
    pairs = [(r.cpu(), o.cpu()) for r, o in zip(result, reference, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        return Agreement('maps of other sizes', False)
    share = max(float((a != b).float().mean()) for a, b in pairs)
    found, ids = (torch.stack(maps).unique() for maps in zip(*pairs, strict=True))
    if share == 0:
        return Agreement(f'equal ({len(ids)} ids)', True)
    text = f'{share:.3%} of pixels differ'
    if not torch.equal(found, ids):
        return Agreement(f'{text}, and the ids that occur', False)
    return Agreement(text, share <= FLIPPED)


def _compare_instances(result: Instances, reference: Instances) -> Agreement:
    if len(result.scores) != len(reference.scores):
        counts = f'{len(result.scores)} against {len(reference.scores)} instances'
        return Agreement(counts, False)
    if not len(reference.scores):
        return Agreement('equal (none)', True)
    # Of equal scores, and on another device, the order may differ.
    order, other = (
        r.scores.cpu().sort(stable=True).indices for r in (result, reference)
    )
    parts = ('labels', 'masks', 'boxes')
    differing = [
        part
        for part in parts
        if not torch.equal(
            getattr(result, part).cpu()[order], getattr(reference, part).cpu()[other]
        )
    ]
    if differing:
        return Agreement(f'{", ".join(differing)} differ', False)
    gap = (result.scores.cpu()[order] - reference.scores.cpu()[other]).abs().max()
    return Agreement(f'equal, scores within {float(gap):.0e}', float(gap) < 1e-5)
