"""Cityscapes' classes with the things first, and the segments of an image.

An `_instanceIds.png` of gtFine (https://www.cityscapes-dataset.com) holds the label of
the release for a region, and 1000 * label + number for an instance. Regions of a thing
without a number are groups that the annotators did not take apart: crowds.
"""

from typing import NamedTuple

import numpy as np

from eomt_mm.errors import UserError


class Label(NamedTuple):
    """A class that counts in the evaluation.

    Attributes:
        value (int): The release's label.
        name (str): Its name.
        colour (tuple[int, int, int]): RGB.
    """

    value: int
    name: str
    colour: tuple[int, int, int]


THINGS = (
    Label(24, 'person', (220, 20, 60)),
    Label(25, 'rider', (255, 0, 0)),
    Label(26, 'car', (0, 0, 142)),
    Label(27, 'truck', (0, 0, 70)),
    Label(28, 'bus', (0, 60, 100)),
    Label(31, 'train', (0, 80, 100)),
    Label(32, 'motorcycle', (0, 0, 230)),
    Label(33, 'bicycle', (119, 11, 32)),
)
STUFF = (
    Label(7, 'road', (128, 64, 128)),
    Label(8, 'sidewalk', (244, 35, 232)),
    Label(11, 'building', (70, 70, 70)),
    Label(12, 'wall', (102, 102, 156)),
    Label(13, 'fence', (190, 153, 153)),
    Label(17, 'pole', (153, 153, 153)),
    Label(19, 'traffic light', (250, 170, 30)),
    Label(20, 'traffic sign', (220, 220, 0)),
    Label(21, 'vegetation', (107, 142, 35)),
    Label(22, 'terrain', (152, 251, 152)),
    Label(23, 'sky', (70, 130, 180)),
)
LABELS = THINGS + STUFF
THING_CLASSES, STUFF_CLASSES = (
    tuple(label.name for label in group) for group in (THINGS, STUFF)
)
PALETTE = [label.colour for label in LABELS]
_CLASS_OF = {label.value: index for index, label in enumerate(LABELS)}
_MOST = 33  # the release's largest label


def segments_of(stored: np.ndarray) -> tuple[np.ndarray, list[int], list[bool]]:
    """Number the segments of an image.

    Labels that do not count in the evaluation are void, with or without a number.

    Args:
        stored (np.ndarray): Shape (H, W), whole numbers: an `_instanceIds.png`.

    Returns:
        tuple[np.ndarray, list[int], list[bool]]: Segment of each pixel, shape (H, W)
        int32, from 1 and 0 for void; the class of each segment, its index in
        `LABELS`; and whether it is a crowd.

    Raises:
        UserError: If a label is none of the release's.
    """
    values, places = np.unique(stored, return_inverse=True)
    numbers, classes, crowds = np.zeros(len(values), np.int32), [], []
    for i, value in enumerate(values.tolist()):
        label = value // 1000 if value >= 1000 else value
        if not 0 <= label <= _MOST:
            raise UserError(
                f'the value {value} stands for label {label}; expected labels from 0 '
                f'to {_MOST}, alone or as 1000 * label + instance: take the '
                '_gtFine_instanceIds.png of the release'
            )
        if label in _CLASS_OF:
            classes.append(_CLASS_OF[label])
            crowds.append(classes[-1] < len(THINGS) and value < 1000)
            numbers[i] = len(classes)
    return numbers[places.reshape(stored.shape)], classes, crowds
