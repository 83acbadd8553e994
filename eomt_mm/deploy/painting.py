"""Results painted over the photo, and said in words."""

import numpy as np
from PIL import Image

from .postprocess import INSTANCE_OFFSET, Instances

OPACITY = 0.6
SURE = 0.5  # instances below this score are not painted
SHADES = (1.0, 0.8, 0.6, 0.9, 0.7)  # of instances of one class, one after the other
VOID = (0, 0, 0)
# Between the instances of a class; a panoptic map has room for fewer classes.
OFFSET = {'semantic': 2**31, 'panoptic': INSTANCE_OFFSET, 'instance': 2**20}


def paint(photo: np.ndarray, result: np.ndarray | Instances, meta: dict) -> Image.Image:
    """Paint a result over the photo in grey, so that colours stay those of the classes.

    Args:
        photo (np.ndarray): Shape (H, W, 3) uint8 in RGB.
        result (np.ndarray | Instances): What the predictor returns of it.
        meta (dict): The file's metadata, with `palette`.

    Returns:
        Image.Image: RGB, of the photo's size.
    """
    ids = id_map(result)
    known, places = np.unique(ids, return_inverse=True)
    palette = np.array([*meta['palette'], VOID], np.float32)
    number, label = np.divmod(known.clip(0), OFFSET[meta['task']])
    colours = palette[label] * np.take(SHADES, number % len(SHADES))[:, None]
    grey = np.asarray(Image.fromarray(photo).convert('L').convert('RGB'), np.float32)
    colours = colours[places.reshape(ids.shape)]
    painted = np.where((ids < 0)[..., None], photo, grey + OPACITY * (colours - grey))
    painted = painted.round().astype(np.uint8)
    if meta['task'] != 'semantic':  # lines between segments
        painted[:-1][ids[:-1] != ids[1:]] = 255
        painted[:, :-1][ids[:, :-1] != ids[:, 1:]] = 255
    return Image.fromarray(painted)


def id_map(result: np.ndarray | Instances) -> np.ndarray:
    """Return one id for each segment, shape (H, W); -1 shows the photo."""
    if not isinstance(result, Instances):
        return result
    ids = np.full(result.masks.shape[1:], -1)
    sure = np.flatnonzero(result.scores > SURE)
    for number in reversed(sure):  # the surest on top
        ids[result.masks[number]] = result.labels[number] + OFFSET['instance'] * number
    return ids


def describe(result: np.ndarray | Instances, meta: dict) -> list[str]:
    """Write a line for each class, segment or instance, the largest or surest first."""
    names = [*meta['classes'], 'void']
    if isinstance(result, Instances):
        return [
            f'{score:6.3f}  {names[label]}'
            for label, score in zip(result.labels, result.scores, strict=True)
            if score > SURE
        ]
    ids, areas = np.unique(result, return_counts=True)
    return [
        f'{100 * areas[i] / result.size:5.1f} %  {names[ids[i] % OFFSET[meta["task"]]]}'
        for i in np.argsort(-areas, kind='stable')
    ]
