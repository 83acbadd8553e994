"""The predictor: a photo in, a class map, segments or instances out.

Each step is that of `tools/test.py`: the loader, the resizing and the windows of the
config's test pipeline, then its post-processing.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from eomt_mm.errors import UserError
from eomt_mm.files import refuse_special
from eomt_mm.pixel_limit import too_large
from eomt_mm.sizes import fitted_size, short_side_size, window_starts

from . import postprocess
from .model_file import read_meta
from .network import Network

Photo = str | Path | BinaryIO | np.ndarray
# What MMCV puts under grey images with transparency.
CANVAS = (124, 117, 104)


class Predictor:
    """A file of `tools/deployment/export.py`, ready to predict.

    Args:
        path (str | Path): The ONNX file.
        providers (list[str], optional): ONNX Runtime's, such as
            'CUDAExecutionProvider'. Defaults to the CPU.
        threads (int): Threads of the CPU; 0 leaves the number to ONNX Runtime.
            Defaults to 0.

    Attributes:
        meta (dict): The file's metadata: task, classes, palette, sizes, thresholds.

    Raises:
        UserError: The file is not an EoMT export, is damaged, or refers to weights
            outside of its folder.
    """

    def __init__(
        self, path: str | Path, providers: list[str] | None = None, threads: int = 0
    ) -> None:
        self.meta = read_meta(path)
        self.network = Network(path, self.meta, providers, threads)

    def __call__(self, photo: Photo) -> np.ndarray | postprocess.Instances:
        """Segment a photo.

        Args:
            photo (str | Path | np.ndarray): A file, or pixels (H, W, 3) uint8 in RGB.

        Returns:
            np.ndarray | Instances: Semantic: classes, shape (H, W) int64. Panoptic:
            class + 1000 * instance, shape (H, W) int64; instances of things count
            from 1, stuff has 0, and `len(meta['classes'])` is void. Instance:
            `Instances`.

        Raises:
            UserError: The photo cannot be read, or the file does not predict what its
                metadata says.
        """
        image = load_photo(photo, self.meta['upright'])
        windows = Windows(image, self.meta)
        if self.meta['task'] == 'semantic':
            scores = windows.average(self.logits(windows.crops))
            return postprocess.best_classes(scores, image.shape[:2])
        ((classes, masks),) = self.logits(windows.crops)

        def fit(mask: np.ndarray) -> np.ndarray:
            mask = postprocess.resize(mask, windows.size)
            height, width = windows.fitted
            return postprocess.resize(mask[:height, :width], image.shape[:2])

        finish = getattr(postprocess, self.meta['task'])
        return finish(classes, masks, fit, image.shape[:2], self.meta)

    def logits(self, crops: list[np.ndarray]):
        """Return class and mask logits of each window, as the network gives them."""
        batch = self.network.batch
        for start in range(0, len(crops), batch):
            chunk = crops[start : start + batch]
            images = np.zeros((batch, *chunk[0].shape), np.float32)
            images[: len(chunk)] = chunk
            yield from list(zip(*self.network(images), strict=True))[: len(chunk)]


class Windows:
    """A photo as the network sees it.

    Args:
        image (np.ndarray): Shape (H, W, 3) uint8.
        meta (dict): The metadata of an export.

    Attributes:
        size (tuple[int, int]): Height and width of a window in pixels.
        fitted (tuple[int, int]): Those of the resized photo.
        crops (list[np.ndarray]): The windows, shape (3, *size) uint8. What lies
            beyond the photo is 0.
    """

    def __init__(self, image: np.ndarray, meta: dict) -> None:
        self.size = rows, cols = tuple(meta['size'])
        self.fitted = height, width = _resized(image.shape[:2], meta)
        if (height, width) != image.shape[:2]:
            image = Image.fromarray(image).resize((width, height), Image.BILINEAR)
        padded = np.zeros((max(rows, height), max(cols, width), 3), np.uint8)
        if meta['task'] != 'semantic' and padded.shape[:2] != self.size:
            raise UserError(
                f'a photo of {height} x {width} pixels is larger than the network, '
                f'{rows} x {cols}, and the test pipeline of the model has no resizing'
            )
        padded[:height, :width] = np.asarray(image)
        self.corners = [
            (top, left)
            for top in window_starts(padded.shape[0], rows)
            for left in window_starts(padded.shape[1], cols)
        ]
        self.crops = [
            padded[top : top + rows, left : left + cols].transpose(2, 0, 1)
            for top, left in self.corners
        ]
        self.whole = padded.shape[:2]

    def average(self, logits) -> np.ndarray:
        """Average class scores (classes, *fitted) of overlapping windows."""
        total, count = None, np.zeros(self.whole, np.float32)
        for (top, left), (classes, masks) in zip(self.corners, logits, strict=True):
            place = np.s_[..., top : top + self.size[0], left : left + self.size[1]]
            scores = postprocess.class_scores(classes, masks, self.size)
            if total is None:
                total = np.zeros((len(scores), *self.whole), np.float32)
            total[place] += scores
            count[place] += 1
        total /= count
        return total[:, : self.fitted[0], : self.fitted[1]]


def _resized(shape: tuple[int, int], meta: dict) -> tuple[int, int]:
    """Return height and width after the resizing of the test pipeline."""
    rule = meta['resize']
    if not rule:
        return shape
    if 'rows' in rule:
        return fitted_size(*shape, (rule['rows'], rule['cols']))
    return short_side_size(*shape, rule['short_side'], rule['max_aspect'])


def load_photo(photo: Photo, upright: bool = True) -> np.ndarray:
    """Load a photo as MMCV's loader does, but in RGB.

    Args:
        photo (str | Path | BinaryIO | np.ndarray): A file, one that is open, or
            pixels, which are only checked.
        upright (bool): Whether EXIF orientation is applied. Defaults to True.

    Returns:
        np.ndarray: Shape (H, W, 3) uint8.

    Raises:
        UserError: The photo cannot be read.
    """
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise UserError(
                f'the photo is an array {photo.shape} {photo.dtype}: expected '
                '(H, W, 3) uint8 in RGB'
            )
        return photo
    if isinstance(photo, (str, Path)):
        refuse_special(photo)
    try:
        with Image.open(photo) as file:
            image = ImageOps.exif_transpose(file) if upright else file
            image.load()
    except FileNotFoundError as error:
        raise UserError(f'{photo} cannot be read: there is no such file') from error
    except Image.DecompressionBombError as error:
        raise UserError(f'{photo} cannot be read: {too_large(error)}') from error
    except Exception as error:  # Pillow raises what each format's decoder raises
        raise UserError(
            f'{photo} is not an image that can be read ({error})'
        ) from error
    if image.mode.startswith('I'):  # 16 bits: Pillow would clip them at 255
        pixels = np.asarray(image)
        image = Image.fromarray((pixels >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == 'LA':
        alpha = image.convert('RGBA')
        image = Image.new('RGB', alpha.size, CANVAS)
        image.paste(alpha, mask=alpha.getchannel('A'))
    return np.asarray(image.convert('RGB'))
