"""Panoptic, instance and semantic results of one image, at its original size.

The order of the work is what costs: a hundred masks of a photograph of 6000 x 4000
pixels are 9 GiB. Queries are therefore selected by their class before any mask is
resized, and then masks are resized in blocks bounded in bytes (see `blocks`), into
results that do not grow with the number of queries (panoptic) or grow by one byte per
pixel and mask (instance). The number of operations grows with the memory of the masks,
not with their number. The device is asked once, for what is selected; the host never
waits for it again. Only encoded masks, and the runs of components, leave it block by
block.

Thresholds and formulas are those of MaskFormer (arXiv 2107.06278, Sec. 3.4) and
Mask2Former (arXiv 2112.01527, Sec. 4), which EoMT (arXiv 2503.19108) keeps; the
encoding and the numbering are MMDetection's.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import Size, block_of, room_for
from .boxes import BoxFrom, boxes_of
from .windows import class_map, resized_argmax

INSTANCE_OFFSET = 1000  # MMDetection: a pixel holds class + instance * 1000


class Instances(NamedTuple):
    """Instance results of one image.

    Attributes:
        labels (Tensor): Shape (N,) int64.
        scores (Tensor): Shape (N,), class score times mask score.
        masks (Tensor | list): Shape (N, H, W) bool, or N encoded masks.
        boxes (Tensor): Shape (N, 4), x1, y1, x2, y2 in pixels around the mask, or
            around what `box_from` takes of it; zeros where it is empty.
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
    block_bytes: int | None = None,
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
        block_bytes (int, optional): See `blocks.block_of`.

    Returns:
        Tensor: Shape (H, W) int64, class + instance * INSTANCE_OFFSET. Instances of
        things count from 1, stuff has instance 0 and thus one segment per class, and
        `classes` stands for void.

    Raises:
        UserError: If the result is larger than the memory.
    """
    num_classes = class_logits.shape[1] - 1
    scores, labels = class_logits.float().softmax(-1).max(-1)
    keep = (labels != num_classes) & (scores > score_thr)
    kept = [query for query, is_kept in enumerate(keep.tolist()) if is_kept]
    device = mask_logits.device
    ids = room_for('Ids', ori_shape, torch.int64, device)
    if not kept:
        return ids.fill_(num_classes)

    # A pixel's owner is the kept query of the highest class score x mask
    # probability, the first one in a tie: a running argmax. It is stored as
    # 2 * owner, plus 1 where the owner's mask holds the pixel (probability >= 0.5).
    highest = torch.full(ori_shape, -1.0, device=device)
    owner = torch.zeros(ori_shape, dtype=torch.int32, device=device)
    mask_areas = torch.zeros(len(kept), dtype=torch.int64, device=device)
    block = block_of(device, input_size, ori_shape, block_bytes)
    queries = _sent(kept, device)
    starts = range(0, len(kept), block.masks)
    for start, some in zip(starts, queries.split(block.masks), strict=True):
        masks = _resize(mask_logits[some], input_size, img_shape, ori_shape)
        weights, areas = scores[some, None, None], mask_areas[start:][: len(some)]
        bands = (
            masks.split(block.rows, 1),
            *(whole.split(block.rows) for whole in (highest, owner)),
        )
        for mask_band, highest_band, owner_band in zip(*bands, strict=True):
            probability = mask_band.sigmoid_()
            inside = probability >= 0.5
            areas += _areas(inside)
            score, code = _first_best(probability.mul_(weights), inside)
            wins = score > highest_band
            torch.maximum(highest_band, score, out=highest_band)
            # A winner replaces the owner, whose number is lower. The maximum of both
            # says the same as torch.where, and is four times as fast on a CPU.
            code.add_(2 * start).mul_(wins)
            torch.maximum(owner_band, code, out=owner_band)
        del masks, bands, mask_band, probability  # before the next are made
    del highest

    owner = owner.flatten()
    owned_areas = _counts(owner, 2 * len(kept)).view(-1, 2).sum(1)
    stays = (owned_areas > 0) & (mask_areas > 0)
    stays &= owned_areas.double() / mask_areas >= overlap_thr
    labels = labels[queries]
    instances = (stays & (labels < num_things)).cumsum(0)
    ids_of_things = labels + INSTANCE_OFFSET * instances
    inside = torch.where(labels < num_things, ids_of_things, labels)
    inside = inside.masked_fill(~stays, num_classes)
    id_of = torch.stack([torch.full_like(inside, num_classes), inside], 1).flatten()
    torch.index_select(id_of, 0, owner, out=ids.view(-1))
    return ids


def instance_result(
    class_logits: Tensor,
    mask_logits: Tensor,
    img_shape: Size,
    input_size: Size,
    ori_shape: Size,
    num_things: int,
    max_per_image: int = 100,
    encode: Callable[[Tensor], list] | None = None,
    block_bytes: int | None = None,
    box_from: BoxFrom = 'mask',
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
        encode (Callable, optional): Called with masks of shape (N, H, W) bool; what it
            returns, one for each, is kept in their place. A hundred masks of a large
            photograph need gigabytes otherwise. Defaults to None.
        block_bytes (int, optional): See `blocks.block_of`.
        box_from (str | float): See `boxes.boxes_of`. Defaults to 'mask'.

    Returns:
        Instances: At most `max_per_image`, in no order. A query may occur several
        times, each time with another label.

    Raises:
        UserError: If the result is larger than the memory.
    """
    num_classes = class_logits.shape[1] - 1
    scores = class_logits.float().softmax(-1)[:, :-1].flatten()
    scores, pairs = scores.topk(min(max_per_image, len(scores)), sorted=False)
    device = mask_logits.device
    found = pairs.tolist()
    things = [i for i, pair in enumerate(found) if pair % num_classes < num_things]
    kept = sorted({found[i] // num_classes for i in things})
    place_of = {query: i for i, query in enumerate(kept)}
    of_query = [place_of[found[i] // num_classes] for i in things]
    rows = [[] for _ in kept]  # of the results that share a query
    for row, i in enumerate(of_query):
        rows[i].append(row)
    things, queries, of_query = (
        _sent(numbers, device) for numbers in (things, kept, of_query)
    )
    scores, pairs = scores[things], pairs[things]

    if encode:
        results = [None] * len(pairs)
    else:
        shape = (len(pairs), *ori_shape)
        results = room_for(f'{len(pairs)} masks', shape, torch.bool, device)
        places = results.unbind()
    quality, boxes = [scores.new_zeros(0)], [scores.new_zeros(0, 4)]
    at_once = block_of(device, input_size, ori_shape, block_bytes).masks
    starts = range(0, len(queries), at_once)
    for start, some in zip(starts, queries.split(at_once), strict=False):
        logits = _resize(mask_logits[some], input_size, img_shape, ori_shape)
        masks = logits > 0
        inside = logits.sigmoid_().mul_(masks).sum((1, 2))
        quality.append(inside / (_areas(masks) + 1e-6))
        del logits  # before the next are made
        boxes.append(boxes_of(masks, box_from).to(scores.dtype))
        pairs_of_block = [
            (row, i)
            for i, of_one in enumerate(rows[start : start + len(some)])
            for row in of_one
        ]
        if encode:
            encoded = encode(masks)
            for row, i in pairs_of_block:
                results[row] = encoded[i]
        else:
            # One operation for all, without a copy in between.
            torch._foreach_copy_(
                [places[row] for row, _ in pairs_of_block],
                [masks[i] for _, i in pairs_of_block],
            )
    quality, boxes = torch.cat(quality), torch.cat(boxes)
    return Instances(
        pairs % num_classes, scores * quality[of_query], results, boxes[of_query]
    )


def semantic_result(
    class_logits: Tensor,
    mask_logits: Tensor,
    img_shape: Size,
    input_size: Size,
    ori_shape: Size,
    block_bytes: int | None = None,
) -> Tensor:
    """Give every pixel of an image a class.

    Args:
        class_logits (Tensor): Shape (K, classes + 1).
        mask_logits (Tensor): Shape (K, h, w).
        img_shape (tuple[int, int]): Height and width of the image within the padded
            input, in pixels.
        input_size (tuple[int, int]): Height and width of the padded input.
        ori_shape (tuple[int, int]): Height and width of the original.
        block_bytes (int, optional): Memory that class scores may take while they are
            resized. Defaults to that of `resized_argmax`.

    Returns:
        Tensor: Shape (H, W) int64.
    """
    scores = class_map(class_logits, mask_logits, input_size)
    rows, cols = img_shape
    return resized_argmax(scores[:, :rows, :cols], ori_shape, block_bytes)


def _resize(
    mask_logits: Tensor, input_size: Size, img_shape: Size, ori_shape: Size
) -> Tensor:
    """Bring masks (N, h, w) to the original size, by way of the network's input."""
    height, width = img_shape
    masks = mask_logits[:, None].float()
    masks = F.interpolate(masks, input_size, mode='bilinear')
    masks = masks[..., :height, :width]  # without padding
    return F.interpolate(masks, ori_shape, mode='bilinear')[:, 0]


def _sent(numbers: list[int], device: torch.device) -> Tensor:
    """Whole numbers on a device, shape (N,) int64; the host does not wait for it."""
    return torch.tensor(numbers, dtype=torch.int64).to(device, non_blocking=True)


def _counts(numbers: Tensor, length: int) -> Tensor:
    """How often each number below `length` occurs in int32 (N,), shape (length,)."""
    if numbers.is_cpu:
        return numbers.bincount(minlength=length)
    # There, bincount asks the device for the least and the largest number.
    counts = torch.zeros(length, dtype=torch.int64, device=numbers.device)
    ones = counts.new_ones(()).expand(len(numbers))
    return counts.scatter_add_(0, numbers.long(), ones)


def _areas(masks: Tensor) -> Tensor:
    """Pixels of each of some masks (N, H, W), shape (N,)."""
    if len(masks) == 1:  # a sum along some dimensions copies to int64 on a CPU
        return masks.count_nonzero()[None]
    return masks.sum((1, 2))


def _first_best(scores: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """The best of some masks at each pixel, of equal ones the first.

    Args:
        scores (Tensor): Shape (N, H, W).
        inside (Tensor): The same, bool.

    Returns:
        tuple[Tensor, Tensor]: Its score and, in int32, twice its number, plus 1 where
        the pixel is inside of it; (H, W) each.
    """
    if len(scores) == 1:  # a maximum takes longer than all the rest on a CPU
        return scores[0], inside[0].int()
    score, first = scores.max(0)
    code = inside.gather(0, first[None])[0].int()
    return score, code.add_(first, alpha=2)
