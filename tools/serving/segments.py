"""A result as a map of segments and a table of them: what the page shows and saves."""

import base64
import zlib
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, maximum_position

from eomt_mm.deploy.painting import SHADES
from eomt_mm.deploy.postprocess import INSTANCE_OFFSET, sigmoid, softmax

from .contrast import ink

NAME_SIDE = 192  # px, long side of the map in which places for names are looked for
Size = tuple[int, int]


@dataclass
class Segment:
    """One row of the table.

    Attributes:
        label (int): Class.
        number (int): Of the instance, from 1; 0 for stuff and classes.
        score (float, optional): From 0 to 1; None where the model has none.
        area (int): Visible pixels.
        box (list[int]): x, y, width and height around them.
        runs (dict, optional): The whole mask in COCO's encoding; things may overlap.
    """

    label: int
    number: int = 0
    score: float | None = None
    area: int = 0
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    runs: dict | None = None


@dataclass
class Segments:
    """All segments of a photo.

    Attributes:
        index (np.ndarray): Shape (H, W) uint16: number of the segment in `rows` plus
            1; 0 where there is none.
        rows (list[Segment]): The table.
    """

    index: np.ndarray
    rows: list[Segment]


def from_ids(
    ids: np.ndarray, void: int, scores: dict[int, float], offset: int = INSTANCE_OFFSET
) -> Segments:
    """Make segments of a map.

    Args:
        ids (np.ndarray): Shape (H, W), class + offset * instance, from 0.
        void (int): The id of no segment.
        scores (dict[int, float]): By id.
        offset (int): Between instances. Defaults to MMDetection's.
    """
    # Counting takes a tenth of the time of np.unique, which sorts all pixels.
    known = np.flatnonzero(np.bincount(ids.ravel()))
    known = known[known != void]
    places = np.zeros(ids.max() + 1, np.uint16)
    places[known] = np.arange(1, len(known) + 1)
    index = places[ids]
    rows = [
        Segment(int(i % offset), int(i // offset), scores.get(int(i))) for i in known
    ]
    return measured(Segments(index, rows))


def from_masks(
    masks, labels: list[int], scores: list[float], runs: list[dict], size: Size
) -> Segments:
    """Make segments of instances, the surest on top.

    Args:
        masks (Iterable[np.ndarray]): Shape (H, W) bool each, the surest first.
        labels (list[int]): Classes.
        scores (list[float]): From 1 to 0.
        runs (list[dict]): The masks in COCO's encoding.
        size (tuple[int, int]): Height and width.
    """
    index, rows = np.zeros(size, np.uint16), []
    for mask, label, score, encoded in zip(masks, labels, scores, runs, strict=True):
        rows.append(Segment(int(label), len(rows) + 1, float(score), runs=encoded))
        index[mask & (index == 0)] = len(rows)
    return measured(Segments(index, rows))


def measured(segments: Segments) -> Segments:
    """Fill in areas and boxes; segments without a visible pixel keep zeros."""
    index, rows = segments.index, segments.rows
    areas = np.bincount(index.ravel(), minlength=len(rows) + 1)[1:]
    places = find_objects(index.astype(np.int32), max_label=len(rows))
    for row, area, place in zip(rows, areas.tolist(), places, strict=True):
        row.area = area
        if place:
            y, x = place
            row.box = (x.start, y.start, x.stop - x.start, y.stop - y.start)
    return segments


def panoptic_scores(
    ids: np.ndarray,
    void: int,
    classes: np.ndarray,
    masks: np.ndarray,
    fitted: Size,
    padded: Size,
) -> dict[int, float]:
    """Score panoptic segments, class score times mean mask probability inside.

    The query of a segment is the one of its class with the highest such score: pixels
    belong to the query of the highest product.

    Args:
        ids (np.ndarray): Shape (H, W), class + 1000 * instance.
        void (int): The id of no segment.
        classes (np.ndarray): Class logits, shape (K, classes + 1).
        masks (np.ndarray): Mask logits, shape (K, h, w), of the padded input.
        fitted (tuple[int, int]): Height and width of the resized photo.
        padded (tuple[int, int]): Those of the input.

    Returns:
        dict[int, float]: By id. Segments smaller than a cell of the mask may miss.
    """
    places = []
    for axis in (0, 1):
        cells = masks.shape[1 + axis]
        centres = (np.arange(cells) + 0.5) * padded[axis] / cells
        centres = centres[centres < fitted[axis]]
        places.append((centres * ids.shape[axis] / fitted[axis]).astype(int))
    small = ids[places[0]][:, places[1]]
    shares = softmax(classes)
    labels, class_scores = shares.argmax(-1), shares.max(-1)
    scores = {}
    for i in np.unique(small).tolist():
        queries = np.flatnonzero(labels == i % INSTANCE_OFFSET)
        if i == void or not queries.size:
            continue
        inside = masks[queries, : small.shape[0], : small.shape[1]][:, small == i]
        scores[i] = float((class_scores[queries] * sigmoid(inside).mean(1)).max())
    return scores


def describe(segments: Segments, classes: list[str], palette: list) -> dict:
    """Describe segments to the page, with the map in bytes.

    Args:
        segments (Segments): Of a photo at the size of the page.
        classes (list[str]): Names.
        palette (list): RGB of each class.
    """
    height, width = segments.index.shape
    rows = []
    for row, place in zip(segments.rows, name_places(segments), strict=True):
        shade = SHADES[row.number % len(SHADES)]
        colour = [round(shade * c) for c in palette[row.label]]
        rows.append(
            dict(
                name=classes[row.label],
                label=row.label,
                number=row.number,
                score=row.score,
                share=row.area / (height * width),
                colour=colour,
                ink=ink(colour),
                place=place,
            )
        )
    return dict(
        width=width, height=height, rows=rows, index=packed(segments.index, '<u2')
    )


def packed(values: np.ndarray, dtype: str) -> str:
    """Compress an array for the page: deflated, as text."""
    content = zlib.compress(np.ascontiguousarray(values, dtype), 1)
    return base64.b64encode(content).decode()


def name_places(segments: Segments) -> list[list[float]]:
    """Find where each segment is widest: x, y and half the width, in pixels.

    Zeros for segments that are too thin for a name.
    """
    index = segments.index
    step = -(-max(index.shape) // NAME_SIDE)
    small = np.pad(index[::step, ::step], 1)
    border = np.ones(small.shape, bool)
    for axis in (0, 1):
        same = np.diff(small.astype(np.int32), axis=axis) == 0
        ends = [(0, 0), (0, 0)]
        for side in ((0, 1), (1, 0)):
            ends[axis] = side
            border &= np.pad(same, ends, constant_values=True)
    depth = distance_transform_edt(border)
    numbers = np.arange(1, len(segments.rows) + 1)
    if not numbers.size:
        return []
    found = maximum_position(depth, small, numbers)
    places = []
    for (y, x), number in zip(found, numbers, strict=True):
        deep = depth[y, x] if small[y, x] == number else 0
        places.append([float(v * step) for v in (x - 1, y - 1, deep)])
    return places
