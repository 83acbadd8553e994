"""Several views of one image, flipped or resized, merged before they become results.

Class logits and mask logits are averaged before any threshold, because a threshold
loses what a view is unsure of. The question is which of them belong together. Views
share their queries, but a query that has found an object on the left may find another
one in the mirror image. Queries of two views are therefore matched by what they have
found ('match'), or taken by their numbers ('query').
"""

from collections.abc import Sequence
from numbers import Real
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from eomt_mm.errors import UserError

from .tiles import Segments

MERGES = ('match', 'query')


class View(NamedTuple):
    """One view of an image.

    Attributes:
        segments (Segments): What its queries have found.
        flip (str, optional): 'horizontal', 'vertical' or 'diagonal', None for none.
    """

    segments: Segments
    flip: str | None = None


def merge_views(
    views: Sequence[View], merge: str = 'match', match_thr: float = 0.25
) -> Segments:
    """Average the logits of several views of one image.

    Args:
        views (Sequence[View]): At least one. The result has as many segments as the
            first, in its order, at its size, and upright.
        merge (str): 'query': segments of one number belong together, and all views
            have as many. 'match': those of the first view are matched one to one with
            those of each other view (`similarity`); what nothing is like in another
            view is not changed by it. Defaults to 'match'.
        match_thr (float): Least similarity of a match. Defaults to 0.25.

    Returns:
        Segments: One view that is not flipped comes back as it is.
    """
    first = upright(views[0], views[0])
    classes, masks = first.class_logits.float(), first.mask_logits.float()
    class_sum, mask_sum = classes.clone(), masks.clone()
    count = torch.ones(len(classes), device=classes.device)
    for view in views[1:]:
        other = upright(view, views[0])
        if merge == 'query':
            own = theirs = torch.arange(len(classes), device=classes.device)
        else:
            alike = similarity(
                (classes, masks), (other.class_logits, other.mask_logits)
            ).cpu()
            own, theirs = map(
                torch.from_numpy, linear_sum_assignment(alike, maximize=True)
            )
            sure = alike[own, theirs] >= match_thr
            own, theirs = (index[sure].to(classes.device) for index in (own, theirs))
        class_sum[own] += other.class_logits[theirs].float()
        mask_sum[own] += other.mask_logits[theirs].float()
        count[own] += 1
    return first._replace(
        class_logits=class_sum / count[:, None],
        mask_logits=mask_sum / count[:, None, None],
    )


def similarity(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Compare segments of two views: IoU of masks times overlap of class probabilities.

    Args:
        one (tuple[Tensor, Tensor]): Class logits (K, classes + 1) and mask logits
            (K, h, w).
        other (tuple[Tensor, Tensor]): The same of L segments.

    Returns:
        Tensor: Shape (K, L), from 0 to 1; 1 for equal segments with a mask.
    """
    a, b = ((masks > 0).flatten(1).float() for _, masks in (one, other))
    both = a @ b.mT
    iou = both / (a.sum(1)[:, None] + b.sum(1) - both).clamp(min=1)
    p, q = (classes.float().softmax(-1) for classes, _ in (one, other))
    # The sum of the smaller ones is 1 less half of the distance in L1.
    return iou * (1 - torch.cdist(p, q, p=1) / 2)


def upright(view: View, like: View) -> Segments:
    """Bring the masks of a view to the size of another, without its flip.

    Args:
        view (View): The view.
        like (View): Has the size; its own flip does not matter.

    Returns:
        Segments: The very masks where there is nothing to do.
    """
    segments, target = view.segments, like.segments
    cells = tuple(target.mask_logits.shape[1:])
    same = (
        segments.img_shape == target.img_shape
        and segments.input_size == target.input_size
        and tuple(segments.mask_logits.shape[1:]) == cells
    )
    if view.flip is None and same:
        return segments
    flipped = {
        None: (False, False),
        'vertical': (True, False),
        'horizontal': (False, True),
        'diagonal': (True, True),
    }[view.flip]
    places = []
    for axis, is_flipped in enumerate(flipped):
        # Centres of cells, as shares of the image without its padding.
        side = target.input_size[axis] / cells[axis]
        centres = torch.arange(cells[axis], device=segments.mask_logits.device) + 0.5
        share = centres * side / target.img_shape[axis]
        if is_flipped:
            share = 1 - share
        pixel = share * segments.img_shape[axis]
        places.append(2 * pixel / segments.input_size[axis] - 1)  # from -1 to 1
    y, x = torch.meshgrid(*places, indexing='ij')
    masks = F.grid_sample(
        segments.mask_logits[None].float(),
        torch.stack([x, y], -1)[None],
        padding_mode='border',
        align_corners=False,
    )[0]
    return target._replace(class_logits=segments.class_logits, mask_logits=masks)


def check_merge(merge: object, match_thr: object) -> None:
    """Raise a UserError if views cannot be merged so."""
    if merge not in MERGES:
        raise UserError(f'tta_model.merge is {merge!r}, expected one of {MERGES}')
    is_number = isinstance(match_thr, Real) and not isinstance(match_thr, bool)
    if not (is_number and 0 <= match_thr <= 1):
        raise UserError(
            f'tta_model.match_thr is {match_thr!r}, expected a similarity from 0 to 1'
        )
