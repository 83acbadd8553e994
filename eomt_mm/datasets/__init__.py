"""Data: transforms, careful reading, synthetic scenes, and MMSeg's datasets.

The semantic datasets need MMSeg, the panoptic and instance datasets MMDet; the rest
needs only mmcv.
"""

from importlib.util import find_spec

from eomt_mm.registry import has_mmdet

from .multi_band import LoadMultiBandImage
from .pixels import DecodeSixteenBit
from .reading import CheckLabelSize, ReadableDataset
from .scenes import draw_scene
from .transforms import (
    ColorJitter,
    FitInside,
    PadAndCrop,
    ResizeShortSide,
    RetryUntilLabelled,
    ScaleJitter,
)

__all__ = [
    'CheckLabelSize',
    'ColorJitter',
    'DecodeSixteenBit',
    'FitInside',
    'LoadMultiBandImage',
    'PadAndCrop',
    'ReadableDataset',
    'ResizeShortSide',
    'RetryUntilLabelled',
    'ScaleJitter',
    'draw_scene',
]

if find_spec('mmseg'):
    from .bravo import BravoDataset
    from .semantic import (
        ADE20KDataset,
        CityscapesDataset,
        COCOStuffDataset,
        OODScenesDataset,
        PascalVOCDataset,
        ScenesDataset,
        SegDataset,
    )
    from .semantic_loading import LoadSemanticAnnotations
    from .unknown_objects import UnknownObjectsDataset

    __all__ += [
        'ADE20KDataset',
        'BravoDataset',
        'COCOStuffDataset',
        'CityscapesDataset',
        'LoadSemanticAnnotations',
        'OODScenesDataset',
        'PascalVOCDataset',
        'ScenesDataset',
        'SegDataset',
        'UnknownObjectsDataset',
    ]

if has_mmdet():
    from .copy_paste import CopyPaste
    from .detection import (
        ADE20KPanopticDataset,
        CityscapesInstanceDataset,
        CityscapesPanopticDataset,
        CocoInstanceDataset,
        CocoPanopticDataset,
        ScenesInstanceDataset,
        ScenesPanopticDataset,
    )
    from .instance_loading import LoadInstanceAnnotations
    from .panoptic_png import LoadPanopticAnnotations

    __all__ += [
        'ADE20KPanopticDataset',
        'CityscapesInstanceDataset',
        'CityscapesPanopticDataset',
        'CocoInstanceDataset',
        'CocoPanopticDataset',
        'CopyPaste',
        'LoadInstanceAnnotations',
        'LoadPanopticAnnotations',
        'ScenesInstanceDataset',
        'ScenesPanopticDataset',
    ]
