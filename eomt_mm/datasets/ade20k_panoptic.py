"""ADE20K panoptic: the two orders of its 150 classes, and the segments of an image.

The scene parsing release (arXiv 1608.05442) and the official EoMT checkpoints mix
things and stuff: wall, building, sky, floor, tree, ceiling, road, bed, ... MMDetection
puts the 100 things first, then the 50 kinds of stuff, each in the release's order. The
instance maps of the release number the same things, in the same order, from 1.
"""

import numpy as np
from torch import Tensor

from eomt_mm.errors import UserError

# Labels of the release, counted from 0.
STUFF = (
    *(0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46),
    *(48, 51, 52, 54, 59, 60, 61, 63, 68, 77, 79, 84, 91, 94, 96, 99, 100, 101),
    *(105, 106, 109, 113, 114, 117, 122, 128, 131, 140, 141, 145),
)
THINGS = tuple(label for label in range(150) if label not in STUFF)
# MMDetection's label i is the release's RELEASE_LABELS[i].
RELEASE_LABELS = THINGS + STUFF


def things_first(rows: Tensor) -> Tensor:
    """Bring the rows of a class head from the release's order to MMDetection's.

    Args:
        rows (Tensor): Shape (151, ...), a weight or a bias; the last row is
            "no object".

    Returns:
        Tensor: The same rows in the other order, the last one still last.

    Raises:
        UserError: If there are not 151 rows.
    """
    if len(rows) != 151:
        raise UserError(
            f'the class head has {len(rows)} rows; expected 151, for the 150 classes '
            'of ADE20K and for "no object"'
        )
    return rows[[*RELEASE_LABELS, 150]]


def panoptic_map(
    semantic: np.ndarray, instance: np.ndarray
) -> tuple[np.ndarray, list[int]]:
    """Number the segments of an image: its stuff, then its instances.

    The instance counts where both maps have something. Things without an instance are
    void, as their number is unknown.

    Args:
        semantic (np.ndarray): Shape (H, W) uint8, the release's label + 1; 0 is void.
        instance (np.ndarray): Shape (H, W, 3) uint8: class of thing from 1, instance
            from 1 or 0 without one, not used.

    Returns:
        tuple[np.ndarray, list[int]]: Segment of each pixel, shape (H, W) int32, from
        1 and 0 for void; and MMDetection's label of each segment.

    Raises:
        UserError: If a label is out of range.
    """
    thing, number = instance[..., 0].astype(np.int32), instance[..., 1]
    is_thing = number > 0
    if semantic.max() > 150:
        raise UserError(
            f'label {semantic.max()} in the semantic map; expected 0 (void) to 150'
        )
    wrong = thing[is_thing & ((thing < 1) | (thing > len(THINGS)))]
    if len(wrong):
        raise UserError(
            f'class {wrong[0]} of an instance in the instance map; expected 1 to '
            f'{len(THINGS)}'
        )
    # A code for each segment: label + 1 for stuff, beyond 255 for instances.
    code_of_stuff = np.zeros(151, np.int32)
    code_of_stuff[np.array(STUFF) + 1] = len(THINGS) + 1 + np.arange(len(STUFF))
    code = np.where(is_thing, 256 * thing + number, code_of_stuff[semantic])
    codes = np.flatnonzero(np.bincount(code.ravel()))
    codes = codes[codes > 0]
    id_of = np.zeros(code.max() + 1, np.int32)
    id_of[codes] = np.arange(1, len(codes) + 1)
    labels = np.where(codes < 256, codes, codes // 256) - 1
    return id_of[code], labels.tolist()
