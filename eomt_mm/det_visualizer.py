"""MMDet's visualizer, for all kinds of results."""

import numpy as np
import torch
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData, PixelData

from eomt_mm.registry import VISUALIZERS
from eomt_mm.run_lengths import plain_masks


@VISUALIZERS.register_module()
class DetVisualizer(DetLocalVisualizer):
    """`DetLocalVisualizer` without its failures on two kinds of results.

    An image that is all void stays unpainted: early in a training, or on a photo of
    unknown things. Encoded masks (`test_cfg.encode_masks`) are decoded if they are
    painted.
    """

    def _draw_instances(
        self,
        image: np.ndarray,
        instances: InstanceData,
        classes: list[str] | None,
        palette: list | None,
    ) -> np.ndarray:
        if isinstance(instances.get('masks'), list):
            instances = instances.clone()
            masks = torch.from_numpy(plain_masks(instances.masks, image.shape[:2]))
            instances.masks = masks
        return super()._draw_instances(image, instances, classes, palette)

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
