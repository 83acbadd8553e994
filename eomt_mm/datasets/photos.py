"""The photo of a prediction: the pixels that the network saw, before resizing."""

from collections.abc import Sequence

import numpy as np
from mmengine.dataset import Compose


def read_photo(info: dict, steps: Sequence[dict]) -> np.ndarray:
    """Read a photo by the loader of a pipeline.

    The loader decides on orientation and bit depth, and the prediction has its shape.

    Args:
        info: `img_path`, and the annotations if there are any.
        steps: The steps of the pipeline that load the image.

    Returns:
        np.ndarray: RGB, shape (H, W, 3), uint8.
    """
    image = Compose(list(steps))(dict(info))['img']
    return np.ascontiguousarray(image[..., ::-1].round().astype(np.uint8))
