"""Data: transforms, careful reading, synthetic scenes, and MMSeg's datasets.

The semantic datasets are there where MMSeg is installed; the rest needs only mmcv.
"""

from importlib.util import find_spec

from .reading import CheckLabelSize, DecodeSixteenBit, ReadableDataset
from .scenes import draw_scene
from .transforms import (
    ColorJitter,
    PadAndCrop,
    ResizeShortSide,
    RetryUntilLabelled,
    ScaleJitter,
)

__all__ = [
    'CheckLabelSize',
    'ColorJitter',
    'DecodeSixteenBit',
    'PadAndCrop',
    'ReadableDataset',
    'ResizeShortSide',
    'RetryUntilLabelled',
    'ScaleJitter',
    'draw_scene',
]

if find_spec('mmseg'):
    from .semantic import ADE20KDataset, CityscapesDataset, ScenesDataset

    __all__ += ['ADE20KDataset', 'CityscapesDataset', 'ScenesDataset']
