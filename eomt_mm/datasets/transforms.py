"""The augmentation and test-time resizing of EoMT (arXiv 2503.19108), for MM.

Each transforms the `results` dict of MMSeg and MMDet: the image under `img`, in BGR,
label maps, and the instances of MMDet. Random numbers come from NumPy's global
generator, which MMEngine seeds in every worker.
"""

import copy

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from torchvision.transforms.v2 import functional as F

from eomt_mm.errors import UserError
from eomt_mm.registry import TRANSFORMS
from eomt_mm.sizes import fitted_size, short_side_size

from . import geometry, instances


def _as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _resized(results: dict, old: tuple[int, int], new: tuple[int, int]) -> dict:
    """Record the keys of MM's own resizing; sizes are heights and widths."""
    results['img_shape'] = new
    results['scale_factor'] = (new[1] / old[1], new[0] / old[0])
    results['keep_ratio'] = True
    return results


@TRANSFORMS.register_module()
class ColorJitter(BaseTransform):
    """Brightness, contrast, saturation and hue, each with probability one half.

    Brightness is multiplicative and contrast blended, as in torchvision's version of
    SSD's recipe. MMSeg's `PhotoMetricDistortion` differs: additive brightness and
    twice the hue.

    Brightness comes first. Contrast then comes before saturation and hue in one
    half of the cases, after them in the other.

    Args:
        brightness (float): Factor in [1 - b, 1 + b]. Defaults to 32 / 255.
        contrast (float): Factor in [1 - c, 1 + c]. Defaults to 0.5.
        saturation (float): Factor in [1 - s, 1 + s]. Defaults to 0.5.
        hue (float): Shift in [-h, h], in turns of the circle. Defaults to 0.05.
    """

    def __init__(
        self,
        brightness: float = 32 / 255,
        contrast: float = 0.5,
        saturation: float = 0.5,
        hue: float = 0.05,
    ) -> None:
        self.ranges = {
            F.adjust_brightness: (1 - brightness, 1 + brightness),
            F.adjust_contrast: (1 - contrast, 1 + contrast),
            F.adjust_saturation: (1 - saturation, 1 + saturation),
            F.adjust_hue: (-hue, hue),
        }

    def transform(self, results: dict) -> dict:
        """Jitter `img`, (H, W, 3) in BGR, uint8 or float32 from 0 to 255.

        Raises:
            UserError: If the image does not have three channels.
        """
        if results['img'].shape[2] != 3:
            raise UserError(
                f'{results.get("img_path")} has {results["img"].shape[2]} bands, and '
                'ColorJitter changes colours, of which there are three: leave it out '
                'of the pipeline, as set_bands of eomt_mm.bands does'
            )
        operations = [F.adjust_brightness, F.adjust_saturation, F.adjust_hue]
        contrast_at = 1 if np.random.rand() < 0.5 else 3
        operations.insert(contrast_at, F.adjust_contrast)

        rgb = results['img'][..., ::-1].transpose(2, 0, 1)
        rgb = torch.from_numpy(np.ascontiguousarray(rgb))
        # torchvision takes floats for values in [0, 1] and clamps them.
        scale = 255 if rgb.is_floating_point() else 1
        rgb = rgb / scale if scale > 1 else rgb
        for operation in operations:
            if np.random.rand() < 0.5:
                rgb = operation(rgb, np.random.uniform(*self.ranges[operation]))
        rgb = rgb * scale if scale > 1 else rgb
        bgr = rgb.numpy().transpose(1, 2, 0)[..., ::-1]
        results['img'] = np.ascontiguousarray(bgr)
        return results


@TRANSFORMS.register_module()
class ScaleJitter(BaseTransform):
    """Fit the image inside the crop, then scale by a random factor.

    At scale 1 the *long* side fills the crop, for semantic segmentation too, so
    that the object sizes differ from those after MMSeg's `RandomResize`.

    Args:
        size (int | tuple[int, int]): The crop: its side, or height and width.
        scale_range (tuple[float, float]): The factor is drawn uniformly from it.
    """

    def __init__(
        self, size: int | tuple[int, int], scale_range: tuple[float, float]
    ) -> None:
        self.size = _as_pair(size)
        self.scale_range = scale_range

    def transform(self, results: dict) -> dict:
        """Resize `img` (bilinear, antialiased), labels and masks (nearest)."""
        height, width = results['img'].shape[:2]
        size = geometry.jittered_size(
            height, width, self.size, np.random.uniform(*self.scale_range)
        )
        results['img'] = geometry.resize_image(results['img'], *size)
        for key in instances.label_maps(results):
            results[key] = geometry.resize_labels(results[key], *size)
        instances.change_masks(
            results, lambda masks: geometry.resize_labels(masks, *size)
        )
        return _resized(results, (height, width), size)


@TRANSFORMS.register_module()
class PadAndCrop(BaseTransform):
    """Pad right and bottom up to the crop's size, then crop at random.

    The image is padded with raw 0, before normalisation: a network trained this
    way has seen black borders, not borders of the mean colour, which is what a
    data preprocessor pads with.

    Args:
        size (int | tuple[int, int]): The crop: its side, or height and width.
        seg_pad_val (int): Pads the label maps. Defaults to 255, the ignore value.
    """

    def __init__(self, size: int | tuple[int, int], seg_pad_val: int = 255) -> None:
        self.size = _as_pair(size)
        self.seg_pad_val = seg_pad_val

    def transform(self, results: dict) -> dict:
        """Pad and crop `img`, label maps and masks to `size`.

        Instances without a pixel in the crop are dropped.
        """
        height, width = results['img'].shape[:2]
        top = np.random.randint(0, max(0, height - self.size[0]) + 1)
        left = np.random.randint(0, max(0, width - self.size[1]) + 1)

        def crop(array: np.ndarray, fill: int) -> np.ndarray:
            return geometry.crop(array, top, left, self.size, fill)

        channels_first = results['img'].transpose(2, 0, 1)
        image = crop(channels_first, 0).transpose(1, 2, 0)
        results['img'] = np.ascontiguousarray(image)
        for key in instances.label_maps(results):
            results[key] = crop(results[key], self.seg_pad_val)
        instances.change_masks(results, lambda masks: crop(masks, 0))
        results['img_shape'] = self.size
        return results


@TRANSFORMS.register_module()
class RetryUntilLabelled(BaseTransform):
    """Augment again while the result holds no labelled pixel and no instance.

    Crowds are dropped first. Every try starts from the untouched sample. When the
    tries are used up the last result is returned: a target without a segment is
    legal, and an image without a label must not hold training up for ever.

    Args:
        transforms (list[dict]): The random part of a pipeline.
        max_tries (int): Bound on the tries. Defaults to 10.
        ignore_index (int): The label that does not count. Defaults to 255.
    """

    def __init__(
        self, transforms: list[dict], max_tries: int = 10, ignore_index: int = 255
    ) -> None:
        if max_tries < 1:
            raise UserError(
                f'RetryUntilLabelled: max_tries is {max_tries}; give 1 or more'
            )
        self.transforms = Compose(transforms)
        self.max_tries = max_tries
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict | None:
        """Apply the inner transforms until a label is left."""
        instances.drop_crowds(results)
        for _ in range(self.max_tries):
            augmented = self.transforms(copy.deepcopy(results))
            if augmented is not None and instances.is_labelled(
                augmented, self.ignore_index
            ):
                break
        return augmented


@TRANSFORMS.register_module()
class ResizeShortSide(BaseTransform):
    """Resize the image, for testing, so that its short side is `size`.

    Even windows then slide along the long side. Label maps keep their size: the
    evaluation is done at the original one.

    Args:
        size (int): Short side after resizing; the side of a window.
        max_aspect (float): Bounds the long side at `max_aspect * size`, so that a
            strip a few pixels high stays affordable. Images of usual shape are
            not touched by it. Defaults to 10.
    """

    def __init__(self, size: int, max_aspect: float = 10.0) -> None:
        self.size = size
        self.max_aspect = max_aspect

    def transform(self, results: dict) -> dict:
        """Resize `img` bilinearly, as Pillow does."""
        height, width = results['img'].shape[:2]
        size = short_side_size(height, width, self.size, self.max_aspect)
        results['img'] = geometry.resize_image_pil(results['img'], *size)
        return _resized(results, (height, width), size)


@TRANSFORMS.register_module()
class FitInside(BaseTransform):
    """Resize the image, for testing, so that it just fits into the network's input.

    At panoptic and instance segmentation the rest is padded, by the data
    preprocessor. Ground truth keeps its size: load it after this transform.

    Args:
        size (int | tuple[int, int]): The input: its side, or height and width.
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = _as_pair(size)

    def transform(self, results: dict) -> dict:
        """Resize `img` bilinearly, as Pillow does."""
        height, width = results['img'].shape[:2]
        size = fitted_size(height, width, self.size)
        results['img'] = geometry.resize_image_pil(results['img'], *size)
        return _resized(results, (height, width), size)
