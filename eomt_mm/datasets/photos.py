"""The photo of a prediction: the pixels that the network saw, before resizing."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from mmcv.transforms import TestTimeAug
from mmengine.dataset import Compose, ConcatDataset
from torch.utils.data import Dataset

from .multi_band import LoadMultiBandImage
from .pixels import SettlesPixels

Step = Callable[[dict], dict]


class Photos:
    """The photos of a dataset, or of wrappers around several, by their paths.

    Each is read by the pipeline of the dataset that lists it: orientation and bit
    depth are decided there, and a prediction has that shape.

    Args:
        dataset (Dataset): MMEngine's, as built.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._places: dict[str, tuple[Dataset, int]] = {}
        for leaf in leaves(dataset):
            for index in range(len(leaf)):
                path = str(leaf.get_data_info(index)['img_path'])
                self._places.setdefault(path, (leaf, index))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __getitem__(self, path: str) -> np.ndarray:
        """Read the photo at a path: RGB, shape (H, W, 3), uint8."""
        leaf, index = self._places[str(path)]
        return read_photo(leaf.get_data_info(index), leaf.pipeline.transforms)


def leaves(dataset: Dataset) -> Iterator[Dataset]:
    """Return the datasets inside wrappers, of whichever package."""
    if isinstance(dataset, ConcatDataset):
        for child in dataset.datasets:
            yield from leaves(child)
    elif (inner := getattr(dataset, 'dataset', None)) is not None:
        yield from leaves(inner)
    else:
        yield dataset


def read_photo(info: dict, steps: Sequence[dict | Step]) -> np.ndarray:
    """Read a photo by the first steps of a pipeline.

    Args:
        info (dict): `img_path`, and what else the dataset says of the image.
        steps (Sequence[dict | Step]): The pipeline, or its start.

    Returns:
        np.ndarray: RGB, shape (H, W, 3), uint8.
    """
    found, steps = dict(info), Compose(list(steps)).transforms
    for step in _flat(steps):
        if 'img' not in found:
            found = step(found)
        elif isinstance(step, SettlesPixels):
            step.settle(found)
    return as_rgb(found['img'], steps)


def as_rgb(image: np.ndarray, steps: Iterable[Step]) -> np.ndarray:
    """Return what a pipeline has loaded as a picture.

    Args:
        image (np.ndarray): BGR or grey, or the bands of a `LoadMultiBandImage`; shape
            (H, W, C) or (H, W).
        steps (Iterable[Step]): The pipeline, as built.

    Returns:
        np.ndarray: RGB, shape (H, W, 3), uint8.
    """
    for step in _flat(steps):
        if isinstance(step, LoadMultiBandImage):
            return step.paint(image)
    image = image[..., None] if image.ndim == 2 else image
    # Floats where the loader has `to_float32`.
    rgb = np.broadcast_to(image[..., ::-1], (*image.shape[:2], 3))
    return np.ascontiguousarray(rgb.round().astype(np.uint8))


def _flat(steps: Iterable[Step]) -> Iterator[Step]:
    """Return the steps, those of the first view instead of test-time augmentation."""
    for step in steps:
        if isinstance(step, TestTimeAug):
            yield from _flat(step.subroutines[0].transforms)
        else:
            yield step
