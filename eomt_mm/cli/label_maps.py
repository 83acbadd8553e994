"""Label maps of what a data sample holds, MMSegmentation's or MMDetection's."""

from collections.abc import Callable

import numpy as np
from mmengine.config import Config
from mmengine.structures import BaseDataElement

from eomt_mm.errors import UserError
from eomt_mm.run_lengths import plain_masks

from .panels import LabelMap

INSTANCE_OFFSET = 1000  # MMDet's
SURE = 0.5  # instances below this score are not shown
SHADES = (1.0, 0.8, 0.6, 0.9, 0.7)

# Takes a data sample and the dataset's `metainfo`; yields `truth` and `prediction`, as
# far as they are there.
Reader = Callable[[BaseDataElement, dict], dict[str, LabelMap]]


def label_maps_of(cfg: Config) -> Reader:
    """Return the reader for the data samples that a config works with.

    Raises:
        UserError: `default_scope` is neither mmseg nor mmdet.
    """
    scope = cfg.get('default_scope')
    if scope not in READERS:
        raise UserError(f'default_scope is {scope}, expected one of {[*READERS]}')
    return READERS[scope]


def semantic(sample: BaseDataElement, meta: dict) -> dict[str, LabelMap]:
    """Read ground truth and prediction of a `SegDataSample`."""
    names = dict(enumerate(meta['classes']))
    colours = {i: tuple(colour) for i, colour in enumerate(meta['palette'])}
    fields = {'truth': 'gt_sem_seg', 'prediction': 'pred_sem_seg'}
    return {
        column: LabelMap(sample.get(field).data[0].numpy(), names, colours)
        for column, field in fields.items()
        if field in sample
    }


def detection(sample: BaseDataElement, meta: dict) -> dict[str, LabelMap]:
    """Read ground truth and prediction of a `DetDataSample`: segments or instances."""
    maps = {}
    truth = sample.gt_instances
    if 'masks' in truth:
        masks = truth.masks.to_ndarray().astype(bool)
        background = np.full(masks.shape[1:], -1)
        if 'gt_sem_seg' in sample:
            background = sample.gt_sem_seg.sem_seg[0].numpy().astype(int)
        ids = overlaid(background, truth.labels.numpy(), masks)
        maps['truth'] = segment_map(ids, meta)
    if 'pred_panoptic_seg' in sample:
        ids = sample.pred_panoptic_seg.sem_seg[0].numpy()
        maps['prediction'] = segment_map(ids, meta)
    elif 'pred_instances' in sample:
        found = sample.pred_instances
        found = found[found.scores > SURE]
        found = found[found.scores.argsort()]  # the surest on top
        background = np.full(sample.ori_shape, -1)
        masks = plain_masks(found.masks, sample.ori_shape)
        ids = overlaid(background, found.labels.numpy(), masks)
        maps['prediction'] = segment_map(ids, meta)
    return maps


def overlaid(
    background: np.ndarray, labels: np.ndarray, masks: np.ndarray
) -> np.ndarray:
    """Paint instances over a map of classes (H, W), each with an id of its own."""
    ids = background.copy()
    for number, (label, mask) in enumerate(zip(labels, masks, strict=True), start=1):
        ids[mask] = label + number * INSTANCE_OFFSET
    return ids


def segment_map(ids: np.ndarray, meta: dict) -> LabelMap:
    """Return ids class + 1000 * instance; instances of a class differ in brightness."""
    classes, names, colours = meta['classes'], {}, {}
    for i in np.unique(ids).tolist():
        number, label = divmod(i, INSTANCE_OFFSET)
        if 0 <= i and label < len(classes):
            names[i] = classes[label]
            shade = SHADES[number % len(SHADES)]
            colours[i] = tuple(int(shade * c) for c in meta['palette'][label])
    return LabelMap(ids, names, colours, outlined=True, clear=-1)


READERS: dict[str, Reader] = {'mmseg': semantic, 'mmdet': detection}
