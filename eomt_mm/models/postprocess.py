"""Panoptic, instance and semantic results of one image, at its original size.

The order of the work is what costs: a hundred masks of a photograph of 6000 x 4000
pixels are 9 GiB. Queries are therefore selected by their class before any mask is
resized, and then masks are resized one at a time, into results that do not grow with
the number of queries (panoptic) or grow by one byte per pixel and mask (instance).
The device is asked for numbers before and after the loops over masks, never inside.

Thresholds and formulas are those of MaskFormer (arXiv 2107.06278, Sec. 3.4) and
Mask2Former (arXiv 2112.01527, Sec. 4), which EoMT (arXiv 2503.19108) keeps; the
encoding and the numbering are MMDetection's.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import class_map, resized_argmax

INSTANCE_OFFSET = 1000  # MMDetection: a pixel holds class + instance * 1000
# Pixels worked on at once by a CPU: what stays in the cache is twice as fast. Other
# devices take a mask as a whole; there each operation costs a launch.
BAND = 2**20

Size = tuple[int, int]


class Instances(NamedTuple):
    """Instance results of one image.

    Attributes:
        labels (Tensor): Shape (N,) int64.
        scores (Tensor): Shape (N,), class score times mask score.
        masks (Tensor | list): Shape (N, H, W) bool, or N encoded masks.
        boxes (Tensor): Shape (N, 4), x1, y1, x2, y2 in pixels around the mask; zeros
            where it is empty.
    """

    labels: Tensor
    scores: Tensor
    masks: Tensor | list
    boxes: Tensor


def panoptic_result(
    class_logits: Tensor,
    mask_logits: Tensor,
    img_shape: Size,
    input_size: Size,
    ori_shape: Size,
    num_things: int,
    score_thr: float = 0.8,
    overlap_thr: float = 0.8,
) -> Tensor:
    """Give every pixel of an image to at most one segment.

    Args:
        class_logits (Tensor): Shape (K, classes + 1).
        mask_logits (Tensor): Shape (K, h, w).
        img_shape (tuple[int, int]): Height and width of the image within the padded
            input, in pixels.
        input_size (tuple[int, int]): Height and width of the padded input.
        ori_shape (tuple[int, int]): Height and width of the original.
        num_things (int): Labels below are things, the others are stuff.
        score_thr (float): A query needs a higher class score. Defaults to 0.8.
        overlap_thr (float): A segment is dropped if it owns less than this part of
            its mask. Defaults to 0.8.

    Returns:
        Tensor: Shape (H, W) int64, class + instance * INSTANCE_OFFSET. Instances of
        things count from 1, stuff has instance 0 and thus one segment per class, and
        `classes` stands for void.
    """
    num_classes = class_logits.shape[1] - 1
    scores, labels = class_logits.float().softmax(-1).max(-1)
    keep = (labels != num_classes) & (scores > score_thr)
    labels, keep = torch.stack([labels, keep]).tolist()
    kept = [query for query, is_kept in enumerate(keep) if is_kept]
    device = mask_logits.device
    if not kept:
        return torch.full(ori_shape, num_classes, device=device)

    # A pixel's owner is the kept query of the highest class score x mask
    # probability, the first one in a tie: a running argmax. It is stored as
    # 2 * owner, plus 1 where the owner's mask holds the pixel (probability >= 0.5).
    highest = torch.full(ori_shape, -1.0, device=device)
    owner = torch.zeros(ori_shape, dtype=torch.int32, device=device)
    mask_areas = torch.zeros(len(kept), dtype=torch.int64, device=device)
    rows = max(1, BAND // ori_shape[1]) if device.type == 'cpu' else ori_shape[0]
    for i, query in enumerate(kept):
        mask = _resize(mask_logits[query], input_size, img_shape, ori_shape)
        bands = (whole.split(rows) for whole in (mask, highest, owner))
        for mask_band, highest_band, owner_band in zip(*bands, strict=True):
            probability = mask_band.sigmoid_()
            inside = probability >= 0.5
            mask_areas[i] += inside.count_nonzero()
            score = probability.mul_(scores[query])
            wins = score > highest_band
            torch.maximum(highest_band, score, out=highest_band)
            # A winner replaces the owner, whose number is lower. The maximum of both
            # says the same as torch.where, and is four times as fast on a CPU.
            code = inside.int().add_(2 * i).mul_(wins)
            torch.maximum(owner_band, code, out=owner_band)
    del highest, mask

    owner = owner.flatten()
    owned_areas = owner.bincount(minlength=2 * len(kept)).view(-1, 2).sum(1)
    areas = torch.stack([owned_areas, mask_areas], dim=1).tolist()
    ids = [num_classes] * (2 * len(kept))
    instance = 0
    for i, (query, (owned, area)) in enumerate(zip(kept, areas, strict=True)):
        if owned == 0 or area == 0 or owned / area < overlap_thr:
            continue
        if labels[query] < num_things:
            instance += 1
            ids[2 * i + 1] = labels[query] + instance * INSTANCE_OFFSET
        else:
            ids[2 * i + 1] = labels[query]
    ids = torch.tensor(ids, device=device)
    return ids.index_select(0, owner).view(ori_shape)


def instance_result(
    class_logits: Tensor,
    mask_logits: Tensor,
    img_shape: Size,
    input_size: Size,
    ori_shape: Size,
    num_things: int,
    max_per_image: int = 100,
    encode: Callable[[Tensor], object] | None = None,
) -> Instances:
    """Find the things of an image, each with its own mask.

    Args:
        class_logits (Tensor): Shape (K, classes + 1).
        mask_logits (Tensor): Shape (K, h, w).
        img_shape (tuple[int, int]): Height and width of the image within the padded
            input, in pixels.
        input_size (tuple[int, int]): Height and width of the padded input.
        ori_shape (tuple[int, int]): Height and width of the original.
        num_things (int): Labels below are things; results with other labels are
            left out.
        max_per_image (int): Pairs of query and class that are considered, those of
            the highest class score. Defaults to 100.
        encode (Callable, optional): Called with each mask, shape (H, W) bool; what it
            returns is kept in its place. A hundred masks of a large photograph need
            gigabytes otherwise. Defaults to None.

    Returns:
        Instances: At most `max_per_image`, in no order. A query may occur several
        times, each time with another label.
    """
    num_classes = class_logits.shape[1] - 1
    scores = class_logits.float().softmax(-1)[:, :-1].flatten()
    scores, pairs = scores.topk(min(max_per_image, len(scores)), sorted=False)
    is_thing = pairs % num_classes < num_things
    scores, pairs = scores[is_thing], pairs[is_thing]
    queries, of_query = (pairs // num_classes).unique(return_inverse=True)
    rows = [[] for _ in queries]  # of the results that share a query
    for row, i in enumerate(of_query.tolist()):
        rows[i].append(row)

    quality = scores.new_zeros(len(queries))
    boxes = scores.new_zeros(len(queries), 4)
    if encode:
        masks = [None] * len(pairs)
    else:
        masks = mask_logits.new_empty(len(pairs), *ori_shape, dtype=torch.bool)
    for i, query in enumerate(queries.tolist()):
        logits = _resize(mask_logits[query], input_size, img_shape, ori_shape)
        mask = logits > 0
        quality[i] = logits.sigmoid_().mul_(mask).sum() / (mask.sum() + 1e-6)
        boxes[i] = _tight_box(mask)
        kept = encode(mask) if encode else mask
        for row in rows[i]:
            masks[row] = kept
    return Instances(
        pairs % num_classes, scores * quality[of_query], masks, boxes[of_query]
    )


def semantic_result(
    class_logits: Tensor,
    mask_logits: Tensor,
    img_shape: Size,
    input_size: Size,
    ori_shape: Size,
) -> Tensor:
    """Give every pixel of an image a class.

    Args:
        class_logits (Tensor): Shape (K, classes + 1).
        mask_logits (Tensor): Shape (K, h, w).
        img_shape (tuple[int, int]): Height and width of the image within the padded
            input, in pixels.
        input_size (tuple[int, int]): Height and width of the padded input.
        ori_shape (tuple[int, int]): Height and width of the original.

    Returns:
        Tensor: Shape (H, W) int64.
    """
    scores = class_map(class_logits, mask_logits, input_size)
    rows, cols = img_shape
    return resized_argmax(scores[:, :rows, :cols], ori_shape)


def _resize(
    mask_logits: Tensor, input_size: Size, img_shape: Size, ori_shape: Size
) -> Tensor:
    """Bring one mask (h, w) to the original size, by way of the network's input."""
    height, width = img_shape
    mask = F.interpolate(mask_logits[None, None].float(), input_size, mode='bilinear')
    mask = mask[..., :height, :width]  # without padding
    return F.interpolate(mask, ori_shape, mode='bilinear')[0, 0]


def _tight_box(mask: Tensor) -> Tensor:
    """Corners x1, y1, x2, y2 around a mask (H, W); zeros if it is empty."""
    spans = []
    for hit in (mask.any(0), mask.any(1)):  # columns, rows
        # Of equal values, argmax finds the first.
        first = hit.byte().argmax()
        last = len(hit) - hit.flip(0).byte().argmax()
        spans.append(torch.stack([first, last]) * hit.any())
    return torch.stack(spans, dim=1).flatten()
