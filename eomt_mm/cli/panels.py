"""Panels of pictures: a photo beside label maps painted over it, with a legend.

Knows nothing of tasks or frameworks. A label map is an array of ids, with a name and
a colour for each id; ids without a name are void and hatched in black, or clear.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from eomt_mm.files import atomic_path

SMALLEST_SIDE = 256  # px; smaller photos are enlarged, so that one can see something
LARGEST_SIDE = 640  # px of a picture in a panel
SHEET_CELL = 256  # px of a picture on the contact sheet
OPACITY = 0.6
GAP = 12
FONT_SIZE = 15
NAME_SIZE = 13  # of names within a picture
INK = (30, 30, 30)
PAPER = (255, 255, 255)


@dataclass
class LabelMap:
    """Ids of shape (H, W) with what to call them and how to paint them.

    Several ids may have one name: segments of one class. `outlined` draws lines
    between ids and writes the names into them. Pixels of the id `clear` show the
    photo.
    """

    ids: np.ndarray
    names: dict[int, str]
    colours: dict[int, tuple[int, int, int]]
    outlined: bool = False
    clear: int | None = None

    def legend(self) -> dict[str, tuple[int, int, int]]:
        """Return the names that occur and their colours, the largest area first."""
        ids, areas = np.unique(self.ids, return_counts=True)
        order = ids[np.argsort(areas, kind='stable')].tolist()
        legend = {self.names[i]: self.colours[i] for i in order if i in self.names}
        return dict(reversed(legend.items()))


def paint(photo: Image.Image, labels: LabelMap) -> Image.Image:
    """Paint a label map over a photo of any size.

    Args:
        photo: RGB.
        labels: Resized to the photo, nearest neighbour.

    Returns:
        Image.Image: RGB, of the photo's size.
    """
    known, index = np.unique(labels.ids, return_inverse=True)
    table = np.array([labels.colours.get(i, (0, 0, 0)) for i in known.tolist()])
    is_void = np.array([i not in labels.names for i in known.tolist()])
    index = index.reshape(labels.ids.shape).astype(np.int32)
    index = np.array(Image.fromarray(index).resize(photo.size, Image.NEAREST))
    # Over a grey photo a colour stays the colour of the legend.
    pixels = np.asarray(photo.convert('L').convert('RGB'), np.float32)
    painted = (1 - OPACITY) * pixels + OPACITY * table[index]
    y, x = np.indices(index.shape)
    stripes = (x + y) % 12 < 6
    hatched = np.where(stripes[..., None], 0, 0.35 * pixels)
    painted = np.where(is_void[index][..., None], hatched, painted)
    painted = np.where((known == labels.clear)[index][..., None], photo, painted)
    if labels.outlined:
        painted[_edges(index)] = PAPER
    picture = Image.fromarray(painted.round().astype(np.uint8))
    if labels.outlined:
        _write_names(picture, index, [labels.names.get(i, '') for i in known.tolist()])
    return picture


def _edges(index: np.ndarray) -> np.ndarray:
    """Find pixels (H, W) whose right or lower neighbour is of another segment."""
    edges = np.zeros(index.shape, bool)
    edges[:, :-1] |= index[:, :-1] != index[:, 1:]
    edges[:-1] |= index[:-1] != index[1:]
    return edges


def _write_names(picture: Image.Image, index: np.ndarray, names: list[str]) -> None:
    """Write names into the segments that are large enough for them."""
    font = ImageFont.load_default(NAME_SIZE)
    draw = ImageDraw.Draw(picture)
    for number, name in enumerate(names):
        # Where the segment is widest; the picture's border limits it too.
        inside = np.pad(index == number, 1)
        depth = distance_transform_edt(inside)[1:-1, 1:-1]
        if not name or depth.max() < NAME_SIZE / 2:
            continue
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        place = int(x), int(y)
        draw.text(
            place, name, PAPER, font, anchor='mm', stroke_width=2, stroke_fill=INK
        )


def enlarge(photo: Image.Image) -> Image.Image:
    """Bring a photo to a size at which one sees something and panels stay small."""
    small, large = min(photo.size), max(photo.size)
    scale = min(max(1.0, SMALLEST_SIDE / small), LARGEST_SIDE / large)
    width, height = (max(1, round(side * scale)) for side in photo.size)
    return photo.resize((width, height), Image.LANCZOS)


def panel(
    title: str,
    pictures: dict[str, Image.Image],
    legend: dict[str, tuple[int, int, int]],
) -> Image.Image:
    """Draw a row of pictures of equal size, each under its heading, and the legend."""
    font = ImageFont.load_default(FONT_SIZE)
    width, height = next(iter(pictures.values())).size
    total = max(len(pictures) * (width + GAP) + GAP, 320)
    line = FONT_SIZE + GAP
    key = _legend(legend, total - 2 * GAP)
    sheet = Image.new('RGB', (total, 2 * line + height + key.height + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP // 2), title, INK, font)
    for i, (name, picture) in enumerate(pictures.items()):
        left = GAP + i * (width + GAP)
        draw.text((left, line), name, INK, font)
        sheet.paste(picture, (left, 2 * line))
    sheet.paste(key, (GAP, 2 * line + height + GAP))
    return sheet


def contact_sheet(
    rows: list[dict[str, Image.Image]], legend: dict[str, tuple[int, int, int]]
) -> Image.Image:
    """Put all rows on one sheet, two side by side where there are more than four.

    Args:
        rows: Pictures by heading; every row has the same headings.
        legend: Of all rows together.
    """
    font = ImageFont.load_default(FONT_SIZE)
    rows = [{name: _fit(p) for name, p in row.items()} for row in rows]
    blocks = 2 if len(rows) > 4 else 1
    depth = -(-len(rows) // blocks)
    width = SHEET_CELL + GAP // 2
    height = max(p.height for row in rows for p in row.values()) + GAP // 2
    line = FONT_SIZE + GAP
    block = len(rows[0]) * width + 2 * GAP
    key = _legend(legend, blocks * block - 2 * GAP)
    size = blocks * block, line + depth * height + key.height + 2 * GAP
    sheet = Image.new('RGB', size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        down, side = divmod(i, blocks)
        for j, (name, picture) in enumerate(row.items()):
            left = GAP + side * block + j * width
            draw.text((left, GAP // 2), name, INK, font)
            left += (SHEET_CELL - picture.width) // 2
            sheet.paste(picture, (left, line + down * height))
    sheet.paste(key, (GAP, line + depth * height + GAP))
    return sheet


def _fit(picture: Image.Image) -> Image.Image:
    scale = SHEET_CELL / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    return picture.resize(size, Image.LANCZOS)


def _legend(legend: dict[str, tuple[int, int, int]], width: int) -> Image.Image:
    """Draw swatches with names, broken into lines of at most `width` pixels."""
    font = ImageFont.load_default(FONT_SIZE)
    line, swatch = FONT_SIZE + 9, FONT_SIZE + 1
    places, x, y = [], 0, 0
    for name, colour in legend.items():
        step = swatch + 6 + round(font.getlength(name)) + 18
        if x and x + step > width:
            x, y = 0, y + line
        places.append((name, colour, x, y))
        x += step
    key = Image.new('RGB', (width, y + line), PAPER)
    draw = ImageDraw.Draw(key)
    for name, colour, x, y in places:
        box = (x, y + 2, x + swatch, y + 2 + swatch)
        draw.rectangle(box, tuple(colour), outline=INK)
        draw.text((x + swatch + 6, y), name, INK, font)
    return key


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG completely or not at all."""
    with atomic_path(path) as partial:
        picture.save(partial)
