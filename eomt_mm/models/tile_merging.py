"""Which segments of overlapping tiles are the same, and the masks of those.

Where two tiles overlap, both see the same pixels: segments of one class whose masks
agree there are one object. The whole image, shrunk to one coarse tile, overlaps with
all others, and so holds the parts of an object together that is larger than a tile.

What a tile cuts off and nothing continues is a part: it is dropped if a larger thing
holds half of it. Stuff is one segment of each class, so that it needs no overlap; but
a tile that sees nothing else may take grass for water. Of stuff the whole image is the
judge, and tiles refine it where they agree.

Masks stay where they are, in their tiles, until post-processing asks for some of them.
"""

from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import Size

OUTSIDE = -20.0  # mask logit where no tile has seen a segment
# A mask that comes so near to the border of its tile, in cells, is cut by it.
MARGIN = 2
# The whole image shows borders too coarsely for the IoU that tiles reach.
COARSE = 0.5
# Mask logit of stuff in the whole image, at most: small things, which it does not see,
# stand before it.
MODEST = 1.0
HELD = 0.5  # share of a part that lies in the thing it belongs to

Window = tuple[slice, slice]


class Tile(NamedTuple):
    """The segments of one tile.

    Attributes:
        corner (tuple[int, int], optional): Row and column of its first cell on the
            canvas; None for the whole image.
        probs (Tensor): Class probabilities, shape (K, classes + 1).
        masks (Tensor): Mask logits, shape (K, h, w) fp32.
        shrink (tuple[float, float], optional): Of the whole image: its height and
            width as shares of those of the canvas.
    """

    corner: tuple[int, int] | None
    probs: Tensor
    masks: Tensor
    shrink: tuple[float, float] | None = None

    def window(self, canvas: Size) -> tuple[int, int, int, int]:
        """First and last row, first and last column of its cells; the last excluded."""
        if self.corner is None:
            return 0, canvas[0], 0, canvas[1]
        (top, left), (height, width) = self.corner, self.masks.shape[1:]
        return top, top + height, left, left + width

    def seen(self, which: Tensor | slice, rows: slice, cols: slice) -> Tensor:
        """Mask logits of some segments in a part of the canvas that the tile covers.

        Args:
            which (Tensor | slice): Numbers of segments.
            rows (slice): Rows of cells on the canvas.
            cols (slice): Columns of cells.

        Returns:
            Tensor: Shape (N, rows, cols).
        """
        masks = self.masks[which]
        if self.corner is not None:
            top, left = self.corner
            return masks[
                :,
                rows.start - top : rows.stop - top,
                cols.start - left : cols.stop - left,
            ]
        places = []
        for part, share, side in zip(
            (rows, cols), self.shrink, masks.shape[1:], strict=True
        ):
            centres = torch.arange(part.start, part.stop, device=masks.device) + 0.5
            places.append(2 * centres * share / side - 1)  # from -1 to 1
        y, x = torch.meshgrid(*places, indexing='ij')
        grid = torch.stack([x, y], -1)[None]
        return F.grid_sample(
            masks[None], grid, padding_mode='border', align_corners=False
        )[0]

    def areas(self) -> Tensor:
        """Cells of the canvas that each mask holds, shape (K,)."""
        areas = (self.masks > 0).sum((1, 2)).float()
        if self.shrink is None:
            return areas
        return areas / (self.shrink[0] * self.shrink[1])


class Piece(NamedTuple):
    """One segment in one tile, by their numbers."""

    tile: int
    segment: int


class TiledMasks:
    """Mask logits of segments that lie in several tiles, made when asked for.

    Args:
        tiles (list[Tile]): All tiles.
        groups (list[list[Piece]]): The pieces of each segment.
        canvas (tuple[int, int]): Rows and columns of cells of the image.
    """

    def __init__(
        self, tiles: list[Tile], groups: list[list[Piece]], canvas: Size
    ) -> None:
        self.tiles, self.groups, self.canvas = tiles, groups, canvas
        self.device = tiles[0].masks.device

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, which: Tensor) -> Tensor:
        """Return the mask logits of some segments, shape (N, rows, cols) fp32.

        Where tiles overlap this is their mean. What tiles have not found is taken from
        the whole image, which sees less.
        """
        return torch.stack([self._whole(self.groups[i]) for i in which.tolist()])

    def _whole(self, pieces: list[Piece]) -> Tensor:
        mask = torch.full(self.canvas, OUTSIDE, device=self.device)
        fine = [piece for piece in pieces if self.tiles[piece.tile].corner is not None]
        for tile, segment in set(pieces) - set(fine):
            everything = (slice(0, side) for side in self.canvas)
            mask = self.tiles[tile].seen(slice(segment, segment + 1), *everything)[0]
        count, total = torch.zeros_like(mask), torch.zeros_like(mask)
        for tile, segment in fine:
            top, bottom, left, right = self.tiles[tile].window(self.canvas)
            total[top:bottom, left:right] += self.tiles[tile].masks[segment]
            count[top:bottom, left:right] += 1
        return torch.where(count > 0, total / count.clamp(min=1), mask)


def merge_tiles(
    tiles: list[Tile], num_things: int, match_thr: float, canvas: Size
) -> tuple[Tensor, TiledMasks]:
    """Make one list of segments of those of all tiles.

    Args:
        tiles (list[Tile]): At least one; the whole image last, if at all.
        num_things (int): Labels below are things.
        match_thr (float): Least IoU, where two tiles overlap, of the same thing.
        canvas (tuple[int, int]): Rows and columns of cells of the image.

    Returns:
        tuple[Tensor, TiledMasks]: Class logits (M, classes + 1) and M masks. The
        probabilities of a segment are the means over its pieces by their areas.
    """
    tiles = [
        tile if tile.corner is not None else _modest(tile, num_things) for tile in tiles
    ]
    areas = _fetched([tile.areas() for tile in tiles])
    links, held, doubtful = compare_tiles(tiles, areas, num_things, match_thr, canvas)
    links = [link for link in links if doubtful.isdisjoint(link[1:])]
    groups = join(links, [len(tile.probs) for tile in tiles])
    cut = _fetched([_touches_inner_side(tile, canvas) for tile in tiles])

    def is_left_out(piece: Piece) -> bool:
        is_part = piece in held and bool(cut[piece.tile][piece.segment])
        return is_part or piece in doubtful

    groups = [g for g in groups if len(g) > 1 or not is_left_out(g[0])]
    # The mean over the pieces of each segment, by their areas.
    pieces = [piece for group in groups for piece in group]
    first = [0, *accumulate(len(tile.probs) for tile in tiles)]
    device = tiles[0].probs.device
    where = torch.tensor([first[tile] + i for tile, i in pieces], device=device).long()
    owner = torch.tensor([m for m, group in enumerate(groups) for _ in group]).long()
    weights = torch.cat(areas).to(device)[where, None]
    probs = torch.cat([tile.probs for tile in tiles])[where] * weights
    total = probs.new_zeros(len(groups), probs.shape[1])
    total.index_add_(0, owner.to(device), probs)
    mean = total / total.sum(1, keepdim=True)
    return mean.clamp(min=1e-12).log(), TiledMasks(tiles, groups, canvas)


def compare_tiles(
    tiles: list[Tile],
    areas: list[Tensor],
    num_things: int,
    match_thr: float,
    canvas: Size,
) -> tuple[list[tuple[float, Piece, Piece]], set[Piece], set[Piece]]:
    """Compare the masks of all pairs of tiles where they overlap.

    Args:
        tiles (list[Tile]): All tiles.
        areas (list[Tensor]): Cells of their masks, on the CPU.
        num_things (int): Labels below are things.
        match_thr (float): Least IoU of the same thing.
        canvas (tuple[int, int]): Rows and columns of cells of the image.

    Returns:
        tuple[list, set, set]: IoU and pieces of pairs that may be the same; things that
        lie by half in a larger one of another tile; stuff that lies by half in stuff of
        the whole image and agrees with none of its class.
    """
    labels = _fetched([tile.probs[:, :-1].argmax(1) for tile in tiles])
    pairs, found = [], []
    for s, one in enumerate(tiles):
        for t, other in enumerate(tiles[:s]):
            window = _shared(one.window(canvas), other.window(canvas))
            if window is not None:
                a, b = (
                    (tile.seen(slice(None), *window) > 0).flatten(1).float()
                    for tile in (one, other)
                )
                pairs.append((s, t))
                found += [a @ b.mT, a.sum(1), b.sum(1)]
    found = iter(_fetched(found))
    links, held, doubtful = [], set(), set()
    for (s, t), both, own, others in zip(pairs, found, found, found, strict=True):
        iou = both / (own[:, None] + others - both).clamp(min=1)
        things = (labels[s] < num_things)[:, None] & (labels[t] < num_things)
        same = labels[s][:, None] == labels[t]
        coarse = tiles[s].corner is None
        least = COARSE * match_thr
        stuff = (labels[s] >= num_things)[:, None] & (labels[t] >= num_things)
        if coarse:
            alike = same & (iou >= torch.where(things, least, match_thr))
            covered = (stuff & (both >= HELD * others)).any(0)
            agreeing = (stuff & alike).any(0)
            doubtful.update(
                Piece(t, j) for j in (covered & ~agreeing).nonzero()[:, 0].tolist()
            )
        else:
            alike = same & (stuff | (iou >= match_thr))
        for value, (i, j) in zip(
            iou[alike].tolist(), alike.nonzero().tolist(), strict=True
        ):
            links.append((value, Piece(s, i), Piece(t, j)))
        smaller = areas[s][:, None] <= areas[t]
        inside = things & smaller & (both >= HELD * areas[s][:, None])
        held.update(Piece(s, i) for i in inside.any(1).nonzero()[:, 0].tolist())
        inside = things & ~smaller & (both >= HELD * areas[t])
        held.update(Piece(t, j) for j in inside.any(0).nonzero()[:, 0].tolist())
    return links, held, doubtful


def join(
    links: list[tuple[float, Piece, Piece]], counts: list[int]
) -> list[list[Piece]]:
    """Join pieces to segments, the most similar first, one of each tile at most.

    Args:
        links (list[tuple[float, Piece, Piece]]): Similarity of pairs that may be one.
        counts (list[int]): Number of pieces in each tile.

    Returns:
        list[list[Piece]]: Each piece is in one of them.
    """
    group_of = {
        Piece(tile, i): [Piece(tile, i)]
        for tile, count in enumerate(counts)
        for i in range(count)
    }
    for _, one, other in sorted(links, key=lambda link: -link[0]):
        first, second = group_of[one], group_of[other]
        if {piece.tile for piece in first} & {piece.tile for piece in second}:
            continue
        first += second
        group_of.update(dict.fromkeys(second, first))
    return [group for piece, group in group_of.items() if piece == group[0]]


def _shared(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int]
) -> Window | None:
    """The cells that two windows share; None without any."""
    top, left = max(one[0], other[0]), max(one[2], other[2])
    bottom, right = min(one[1], other[1]), min(one[3], other[3])
    if top >= bottom or left >= right:
        return None
    return slice(top, bottom), slice(left, right)


def _modest(tile: Tile, num_things: int) -> Tile:
    """The whole image, with stuff that gives way to what tiles see before it."""
    is_stuff = tile.probs[:, :-1].argmax(1) >= num_things
    modest = tile.masks.clamp(max=MODEST)
    return tile._replace(masks=modest.where(is_stuff[:, None, None], tile.masks))


def _fetched(tensors: list[Tensor]) -> list[Tensor]:
    """Copy tensors of one type to the CPU, all at once."""
    if not tensors:
        return []
    flat = torch.cat([tensor.flatten() for tensor in tensors]).cpu()
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [
        part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)
    ]


def _touches_inner_side(tile: Tile, canvas: Size) -> Tensor:
    """Whether each mask reaches a side of its tile that is inside the image, (K,)."""
    inside = tile.masks > 0
    cut = torch.zeros(len(inside), dtype=torch.bool, device=inside.device)
    if tile.corner is None:
        return cut
    top, bottom, left, right = tile.window(canvas)
    sides = (
        (top > 0, inside[:, :MARGIN]),
        (bottom < canvas[0], inside[:, -MARGIN:]),
        (left > 0, inside[:, :, :MARGIN]),
        (right < canvas[1], inside[:, :, -MARGIN:]),
    )
    for is_inner, strip in sides:
        if is_inner:
            cut |= strip.flatten(1).any(1)
    return cut
