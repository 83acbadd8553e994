"""ViT-Adapter and Mask2Former, and the steps from there to EoMT.

The steps of the paper's ladder (arXiv 2503.19108, Sec. 3.2 and Table 1).

It needs MMDetection and mmcv's operators. `segmentor` also needs MMSegmentation and is
not imported here; the registry finds it at the first look-up.
"""

from .detector import Mask2FormerDetector, Mask2FormerHead
from .feature_pyramid import FeaturePyramid
from .linear_pixel_decoder import LinearPixelDecoder
from .vit_adapter import ViTAdapter

__all__ = [
    'FeaturePyramid',
    'LinearPixelDecoder',
    'Mask2FormerDetector',
    'Mask2FormerHead',
    'ViTAdapter',
]
