"""Build targets from ground truth: label maps, and instances with their masks.

A pixel that belongs to no target (void, crowd, padding) is a negative for all.
"""

import torch
from torch import Tensor

from eomt_mm.errors import UserError

from .criterion import Target


def check_labels(
    labels: Tensor, num_classes: int, ignore_index: int, names: list[str]
) -> None:
    """Refuse labels that are neither a class nor `ignore_index`.

    Args:
        labels (Tensor): Label maps, shape (B, H, W) int64.
        num_classes (int): Labels run from 0 to num_classes - 1.
        ignore_index (int): Label of pixels without ground truth.
        names (list[str]): Names of the images, for the error.

    Raises:
        UserError: Names the label and the image.
    """
    wrong = [
        value
        for value in labels.unique().tolist()
        if value != ignore_index and not 0 <= value < num_classes
    ]
    if wrong:
        first = next(
            name
            for name, image in zip(names, labels, strict=True)
            if (image == wrong[0]).any()
        )
        raise UserError(
            f'label {wrong[0]} in the ground truth of {first}: expected 0 to '
            f'{num_classes - 1} or {ignore_index} (ignored). Check num_classes and '
            'reduce_zero_label of the dataset'
        )


def semantic_targets(
    labels: Tensor, num_classes: int, ignore_index: int, names: list[str]
) -> list[Target]:
    """Make one target for each class that occurs in an image.

    Args:
        labels (Tensor): Label maps, shape (B, H, W) int64.
        num_classes (int): Labels run from 0 to num_classes - 1.
        ignore_index (int): Label of pixels without ground truth.
        names (list[str]): Names of the images, for the error.

    Returns:
        list[Target]: One for each image.

    Raises:
        UserError: If a label is neither a class nor `ignore_index`.
    """
    # Two synchronisations for the whole batch: what occurs at all, and where.
    check_labels(labels, num_classes, ignore_index, names)
    index = labels.masked_fill(labels == ignore_index, num_classes).flatten(1)
    occurs = index.new_zeros(len(labels), num_classes + 1).scatter_(1, index, 1)
    targets = []
    for image, row in zip(labels, occurs[:, :-1].tolist(), strict=True):
        found = [label for label, present in enumerate(row) if present]
        classes = torch.tensor(found, dtype=torch.int64, device=labels.device)
        targets.append(Target(classes, image == classes[:, None, None]))
    return targets


def panoptic_targets(
    things: list[Target],
    labels: Tensor | None,
    num_things: int,
    num_classes: int,
    ignore_index: int,
    names: list[str],
) -> list[Target]:
    """Join the things and one target for each class of stuff in an image.

    Args:
        things (list[Target]): The instances of each image, without crowds.
        labels (Tensor, optional): Label maps of the stuff, shape (B, H, W) int64;
            pixels of things, crowds included, are passed over. None without stuff.
        num_things (int): Labels from 0 to num_things - 1 are things.
        num_classes (int): Labels from num_things to num_classes - 1 are stuff.
        ignore_index (int): Label of pixels without ground truth.
        names (list[str]): Names of the images, for the error.

    Returns:
        list[Target]: One for each image, things first.

    Raises:
        UserError: If an instance has a class of stuff, or a label is not a class.
    """
    wrong = torch.cat([target.labels for target in things]) >= num_things
    if wrong.any():
        name, label = next(
            (name, int(target.labels.max()))
            for name, target in zip(names, things, strict=True)
            if (target.labels >= num_things).any()
        )
        raise UserError(
            f'instance of class {label} in the ground truth of {name}: expected 0 to '
            f'{num_things - 1}. Set num_things_classes to that of the dataset'
        )
    if labels is None:
        return things
    is_thing = (labels >= 0) & (labels < num_things)
    labels = labels.masked_fill(is_thing, ignore_index)
    stuff = semantic_targets(labels, num_classes, ignore_index, names)
    return [
        Target(*(torch.cat(both) for both in zip(*pair, strict=True)))
        for pair in zip(things, stuff, strict=True)
    ]
