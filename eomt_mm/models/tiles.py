"""Instances and segments of large images: overlapping tiles, and the whole image once.

A network sees its input size. An image that is fitted into it loses its small objects;
in tiles they keep their size, but a tile may see a part of a large object alone. The
image is therefore cut into overlapping tiles, as SAHI does (arXiv 2202.06934), and is
seen whole as one more, coarse tile; `tile_merging` finds out which segments of
different tiles are the same. Everything after that is as without tiles: the result is
class logits and mask logits of segments, which take the place of queries.

An image that fits into one tile gives the very result of a model without tiles.
"""

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eomt_mm.errors import UserError
from eomt_mm.sizes import fitted_size

from .blocks import Size
from .criterion import Prediction
from .options import complete_test_cfg
from .tile_merging import Tile, TiledMasks, merge_tiles

DEFAULTS = dict(
    size=None,
    overlap=0.25,
    coarse=True,
    max_tiles=16,
    score_thr=0.1,
    match_thr=0.5,
)
MOST_OVERLAP = 0.9  # more would be a hundred tiles over each pixel


class Segments(NamedTuple):
    """What is found in one image, as post-processing wants it.

    Attributes:
        class_logits (Tensor): Shape (K, classes + 1).
        mask_logits (Tensor | TiledMasks): K masks.
        img_shape (tuple[int, int]): Height and width of the image within the input, in
            pixels.
        input_size (tuple[int, int]): Height and width of the input that the masks
            cover.
    """

    class_logits: Tensor
    mask_logits: Tensor | TiledMasks
    img_shape: Size
    input_size: Size


class Tiling:
    """Cuts images into tiles, and merges what the network finds in them.

    `options` may hold:

    - `size` (int): Height of a tile in pixels of the image as the pipeline leaves it.
      Defaults to that of the network's input, which then sees the image as it is.
    - `overlap` (float): Share of a tile that it has in common with the next one, at
      least; from 0 to 0.9. Objects smaller than that are whole in one of them.
      Defaults to 0.25.
    - `coarse` (bool): Whether the whole image is one more tile. Defaults to True.
    - `max_tiles` (int): Tiles in one forward pass; bounds the memory. Defaults to 16.
    - `score_thr` (float): Least class probability of a query that is kept in a tile.
      Defaults to 0.1.
    - `match_thr` (float): Least IoU, where two tiles overlap, of two masks of one
      class that are the same object. Defaults to 0.5.

    Args:
        options (Mapping): `test_cfg.tiles`.
        input_size (tuple[int, int]): Height and width of the network's input.
        patch_size (int): Side of a patch in pixels; tiles begin at its multiples.
        num_things (int): Labels below are things.

    Raises:
        UserError: If an option is unknown or has no meaning.
    """

    def __init__(
        self, options: Mapping, input_size: Size, patch_size: int, num_things: int
    ) -> None:
        if not isinstance(options, Mapping):
            raise UserError(
                f'test_cfg.tiles is {options!r}, expected a dict such as '
                'dict(overlap=0.25), dict() for the defaults, or None for no tiles'
            )
        self.options = complete_test_cfg(options, DEFAULTS)
        self.input_size, self.patch_size = tuple(input_size), patch_size
        self.num_things = num_things
        _check(self.options, patch_size)
        size = self.options['size']
        # The image is resized by it once; then a tile is the network's input.
        self.scale = 1.0 if size is None else self.input_size[0] / size

    def predict(
        self,
        network: Callable[[Tensor], Prediction],
        image: Tensor,
        black: Tensor,
        even: bool = False,
    ) -> Segments:
        """Find the segments of one image.

        Args:
            network (Callable): From normalised images (B, C, *input_size) to class
                logits and mask logits.
            image (Tensor): See `cut`.
            black (Tensor): See `cut`.
            even (bool): Whether passes have powers of two of tiles, which keeps the
                number of compiled graphs small. Defaults to False.

        Returns:
            Segments: Those of all tiles, each object once.
        """
        crops, corners = self.cut(image, black)
        whole = self._fitted_size(image.shape[1:])
        if corners == [None]:
            classes, masks = network(crops[0][None])
            return Segments(classes[0], masks[0], whole, self.input_size)
        size = _scaled(image.shape[1:], self.scale)
        canvas = self._canvas(size)
        tiles = []
        while crops:
            count = min(len(crops), self.options['max_tiles'])
            if even:
                count = 1 << count.bit_length() - 1
            some, crops = torch.stack(crops[:count]), crops[count:]
            classes, masks = network(some)
            stride = self.input_size[0] // masks.shape[2]
            probs = classes.float().softmax(-1)
            found = probs[..., :-1].amax(2) >= self.options['score_thr']
            found = (found & (masks.flatten(2).amax(2) > 0)).cpu()
            for i in range(count):
                kept = found[i].nonzero()[:, 0].to(masks.device)
                parts = probs[i][kept], masks[i][kept].float()
                corner = corners[len(tiles)]
                if corner is None:
                    shares = (a / b for a, b in zip(whole, size, strict=True))
                    tiles.append(Tile(None, *parts, tuple(shares)))
                else:
                    cell = tuple(side // stride for side in corner)
                    tiles.append(Tile(cell, *parts))
        cells = tuple(side // stride for side in canvas)
        segments = merge_tiles(tiles, self.num_things, self.options['match_thr'], cells)
        return Segments(*segments, size, canvas)

    def cut(
        self, image: Tensor, black: Tensor
    ) -> tuple[list[Tensor], list[tuple[int, int] | None]]:
        """Cut an image into what the network sees.

        Args:
            image (Tensor): Normalised, without padding, shape (C, H, W).
            black (Tensor): Normalised raw 0, which images are padded with, shape
                (C, 1, 1).

        Returns:
            tuple[list[Tensor], list]: Tiles, (C, *input_size), and top and left of
            each in the image at the scale of tiles; None for the whole image, which is
            the last one, or the only one where a tile shows no more.
        """
        whole = _padded(self.fitted(image), self.input_size, black)
        size = _scaled(image.shape[1:], self.scale)
        corners = self.corners(size)
        if len(corners) == 1 and self.scale <= 1:
            return [whole], [None]
        image = _padded(_resized(image, size), self._canvas(size), black)
        rows, cols = self.input_size
        crops = [image[:, y : y + rows, x : x + cols] for y, x in corners]
        if self.options['coarse']:
            return [*crops, whole], [*corners, None]
        return crops, corners

    def fitted(self, image: Tensor) -> Tensor:
        """Shrink an image (C, H, W) until it fits into the input; never enlarge it."""
        return _resized(image, self._fitted_size(image.shape[1:]))

    def _fitted_size(self, size: Size) -> Size:
        (height, width), (rows, cols) = size, self.input_size
        if height <= rows and width <= cols:
            return height, width
        return fitted_size(height, width, self.input_size)

    def _canvas(self, size: Size) -> Size:
        """Height and width that the tiles of an image cover, its padding included."""
        last = self.corners(size)[-1]
        return tuple(a + b for a, b in zip(last, self.input_size, strict=True))

    def corners(self, size: Size) -> list[tuple[int, int]]:
        """Top and left of every tile of an image of this size, row by row."""
        rows, cols = (
            tile_starts(length, side, self.options['overlap'], self.patch_size)
            for length, side in zip(size, self.input_size, strict=True)
        )
        return [(top, left) for top in rows for left in cols]


def tile_starts(length: int, size: int, overlap: float, step: int) -> list[int]:
    """Return the first pixels of evenly spaced tiles that cover a side.

    Args:
        length (int): Side of the image in pixels.
        size (int): Side of a tile in pixels.
        overlap (float): Least share of a tile that it has in common with the next,
            but for rounding to steps.
        step (int): Starts are multiples of it.

    Returns:
        list[int]: From 0; the last tile ends at the end of the image, or less than a
        step beyond.
    """
    if length <= size:
        return [0]
    count = 1 + math.ceil((length - size) / max(step, (1 - overlap) * size))
    last = math.ceil((length - size) / step)
    return [round(i * last / (count - 1)) * step for i in range(count)]


def _check(options: dict, patch_size: int) -> None:
    """Raise a UserError if an option has no meaning."""
    size, max_tiles = options['size'], options['max_tiles']
    is_whole = isinstance(size, int) and not isinstance(size, bool)
    if size is not None and (not is_whole or size < patch_size):
        raise UserError(
            f'test_cfg.tiles.size is {size!r}, expected pixels, at least one patch of '
            f'{patch_size}: leave it out to take the size of the network'
        )
    if isinstance(max_tiles, bool) or not isinstance(max_tiles, int) or max_tiles < 1:
        raise UserError(
            f'test_cfg.tiles.max_tiles is {max_tiles!r}, expected 1 or more'
        )
    if not isinstance(options['coarse'], bool):
        raise UserError(
            f'test_cfg.tiles.coarse is {options["coarse"]!r}, expected True or False'
        )
    for name, most in (('overlap', MOST_OVERLAP), ('score_thr', 1), ('match_thr', 1)):
        value = options[name]
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and 0 <= value <= most):
            raise UserError(
                f'test_cfg.tiles.{name} is {value!r}, expected a share from 0 to {most}'
            )


def _scaled(size: Size, scale: float) -> Size:
    return tuple(max(1, round(side * scale)) for side in size)


def _resized(image: Tensor, size: Size) -> Tensor:
    """Resize an image (C, H, W) bilinearly; smoothed where it becomes smaller."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    return F.interpolate(image[None], size, mode='bilinear', antialias=True)[0]


def _padded(image: Tensor, size: Size, black: Tensor) -> Tensor:
    """Pad an image (C, H, W) at the right and bottom."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    padded = black.to(image).expand(-1, *size).clone()
    padded[:, : image.shape[1], : image.shape[2]] = image
    return padded
