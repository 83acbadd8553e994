"""MMDet's painter of results, which fails on an image without any segment."""

import numpy as np
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import PixelData

from eomt_mm.registry import VISUALIZERS


@VISUALIZERS.register_module()
class DetVisualizer(DetLocalVisualizer):
    """`DetLocalVisualizer`, but an image that is all void stays as it is.

    So early in a training, or on a photo of nothing known.
    """

    def _draw_panoptic_seg(
        self,
        image: np.ndarray,
        panoptic_seg: PixelData,
        classes: list[str],
        palette: list,
    ) -> np.ndarray:
        if (panoptic_seg.sem_seg == len(classes)).all():
            return image
        return super()._draw_panoptic_seg(image, panoptic_seg, classes, palette)
