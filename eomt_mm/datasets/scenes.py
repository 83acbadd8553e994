"""Synthetic scenes, small enough to learn from nothing in minutes.

Sky over ground, and one to four things that turn and overlap. Colour carries no
information. Shape and texture both show the class of a thing: without texture, a plain
ViT trained from scratch finds the masks long before it distinguishes them.
"""

from collections.abc import Callable

import numpy as np

CLASSES = ('sky', 'ground', 'disc', 'square', 'triangle', 'star', 'ring')
PALETTE = [
    [142, 202, 230],
    [138, 128, 98],
    [230, 57, 70],
    [69, 105, 208],
    [67, 170, 139],
    [255, 190, 60],
    [155, 93, 229],
]
NUM_STUFF = 2
SMALL = 1 / 4  # radius of a small thing, as a share of a thing's
RING_HOLE = 0.55
STAR_NOTCH = 0.45


def draw_scene(
    rng: np.random.Generator, size: int | tuple[int, int], small: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one scene.

    Args:
        rng (np.random.Generator): Decides everything; same state, same scene.
        size (int | tuple[int, int]): Side, or height and width, in pixels.
        small (int): Number of small things before the others. Defaults to 0.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: The image (H, W, 3) uint8 in RGB;
        the class of each pixel (H, W) uint8, an index into `CLASSES`; the instance
        of each pixel (H, W) uint8, 0 for stuff, 1.. for things as they were painted.
    """
    height, width = (size, size) if isinstance(size, int) else size
    image, semantic = _draw_background(rng, height, width)
    instance = np.zeros_like(semantic)

    others = rng.integers(1, 5)
    for instance_id in range(1, others + small + 1):
        label = rng.integers(NUM_STUFF, len(CLASSES))
        radius = rng.uniform(0.14, 0.28) * min(height, width)
        radius *= 1 if instance_id <= others else SMALL
        centre_y = rng.uniform(0.1, 0.9) * height
        centre_x = rng.uniform(0.1, 0.9) * width
        window = (
            _reach(centre_y, 1.3 * radius, height),
            _reach(centre_x, 1.3 * radius, width),
        )
        ys, xs = np.mgrid[window].astype(np.float32)
        inside = _paint_thing(
            rng,
            CLASSES[label],
            image[window],
            (xs + 0.5 - centre_x) / radius,
            (ys + 0.5 - centre_y) / radius,
            radius,
        )
        semantic[window][inside] = label
        instance[window][inside] = instance_id
    return (image * 255 + 0.5).astype(np.uint8), semantic, instance


def _reach(centre: float, radius: float, length: int) -> slice:
    """Return the pixels within `radius` of `centre` along an axis of `length`."""
    return slice(max(0, int(centre - radius)), min(length, int(centre + radius) + 2))


# --- stuff -------------------------------------------------------------------


def _draw_background(
    rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw sky, ground and a curve between them: image in [0, 1], and classes."""
    ys = np.arange(height, dtype=np.float32)[:, None] + 0.5
    xs = np.linspace(0, 1, width, dtype=np.float32)
    horizon = rng.uniform(0.35, 0.7)
    for waves in (rng.uniform(0.4, 1.2), rng.uniform(1.5, 3.0)):
        swing, phase = rng.uniform(0, 0.08) / waves, rng.uniform(0, 2 * np.pi)
        horizon = horizon + swing * np.sin(2 * np.pi * waves * xs + phase)
    above = horizon * height - ys  # pixels above the curve
    sky_share = np.clip(above + 0.5, 0, 1)[..., None]

    # Paler towards the horizon, with soft clouds.
    depth = np.clip(ys / height / horizon, 0, 1)[..., None]
    zenith = _colour(rng, saturation=(0.35, 0.75), value=(0.55, 0.95))
    haze = 0.45 * zenith + 0.55
    clouds = sum(
        _smooth_noise(rng, height, width, cells) / cells for cells in (2, 5, 9)
    )
    sky = zenith + (haze - zenith) * depth**2 + 0.2 * clouds[..., None]

    # Speckle: grain of a 64th of the side, and of one pixel.
    earth = _colour(rng, saturation=(0.2, 0.6), value=(0.3, 0.7))
    grain = _smooth_noise(rng, height, width, cells=min(height, width, 64))
    fine = rng.standard_normal((height, width), dtype=np.float32)
    ground = earth * (1 + 0.3 * grain + 0.1 * fine)[..., None]

    image = ground + sky_share * (sky - ground)
    semantic = (above < 0).astype(np.uint8)
    return np.clip(image, 0, 1), semantic


def _smooth_noise(
    rng: np.random.Generator, height: int, width: int, cells: int
) -> np.ndarray:
    """Draw noise in [-1, 1] on a grid with `cells` cells along the short side."""
    cell = min(height, width) / cells
    rows, columns = _interpolation(height, cell), _interpolation(width, cell)
    grid = rng.uniform(-1, 1, (rows.shape[1], columns.shape[1])).astype(np.float32)
    return rows @ grid @ columns.T


def _interpolation(length: int, cell: float) -> np.ndarray:
    """Return weights (length, knots) that blend the two knots around each pixel."""
    position = (np.arange(length, dtype=np.float32) + 0.5) / cell
    knot = position.astype(int)
    blend = position - knot
    blend = blend * blend * (3 - 2 * blend)  # smooth steps hide the grid
    weights = np.zeros((length, int(length / cell) + 2), np.float32)
    weights[np.arange(length), knot] = 1 - blend
    weights[np.arange(length), knot + 1] = blend
    return weights


def _colour(
    rng: np.random.Generator,
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> np.ndarray:
    """Draw a random hue with saturation and value in the given ranges, as RGB."""
    hue = np.array([5, 3, 1]) + 6 * rng.random()
    chroma = np.clip(np.abs((hue % 6) - 3) - 1, 0, 1)
    colour = 1 - rng.uniform(*saturation) * (1 - chroma)
    return (rng.uniform(*value) * colour).astype(np.float32)


# --- things ------------------------------------------------------------------
# Coordinates x and y are in radii from the centre, y pointing down.


def _paint_thing(
    rng: np.random.Generator,
    name: str,
    canvas: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    radius: float,
) -> np.ndarray:
    """Paint one thing onto `canvas` in place; return where it is, as bool."""
    turn = rng.uniform(0, 2 * np.pi)
    u = x * np.cos(turn) + y * np.sin(turn)
    v = y * np.cos(turn) - x * np.sin(turn)
    distance = SHAPES[name](u, v)
    cover = np.clip(0.5 - distance * radius, 0, 1)[..., None]  # antialiased edge

    behind = (canvas * cover).sum((0, 1)) / max(cover.sum(), 1e-6)
    colour = behind
    while np.abs(colour - behind).max() < 0.3:
        colour = _colour(rng, saturation=(0.3, 0.9), value=(0.45, 1.0))

    shadow = 0.35 * np.clip(1 - distance / 0.25, 0, 1) ** 2
    canvas *= 1 - shadow[..., None]
    if name == 'disc':
        surface = _shaded_ball(x, y, colour)
    else:
        surface = _texture(name, u, v, colour, radius)
    canvas += cover * (np.clip(surface, 0, 1) - canvas)
    return distance < 0


def _disc_distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 1


def _ring_distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    middle, half_width = (1 + RING_HOLE) / 2, (1 - RING_HOLE) / 2
    return np.abs(np.hypot(u, v) - middle) - half_width


def _spiked(tips: int, notch: float) -> Callable[..., np.ndarray]:
    """Return a star of `tips` tips at radius 1 with its notches at radius `notch`.

    A regular polygon is the star whose notches lie on its edges.
    """
    half_sector = np.pi / tips
    edge = np.array([notch * np.cos(half_sector) - 1, notch * np.sin(half_sector)])
    normal_x, normal_y = np.array([edge[1], -edge[0]]) / np.hypot(*edge)

    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        angle = np.arctan2(v, u)
        angle = np.abs((angle + half_sector) % (2 * half_sector) - half_sector)
        rho = np.hypot(u, v)
        to_edge = (rho * np.cos(angle) - 1) * normal_x + rho * np.sin(angle) * normal_y
        return np.maximum(to_edge, rho - 1)  # no tip reaches farther

    return distance


def _shaded_ball(x, y, colour):
    """Shade a ball lit from the upper left, whatever the thing's rotation."""
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    light = np.clip(-0.45 * x - 0.55 * y + 0.70 * z, 0, 1)[..., None]
    return colour * (0.3 + 0.8 * light) + 0.6 * light**24


def _texture(
    name: str, u: np.ndarray, v: np.ndarray, colour: np.ndarray, radius: float
) -> np.ndarray:
    """Draw two colours in the pattern of the class."""

    def wave(phase: np.ndarray, frequency: float) -> np.ndarray:
        # Almost a square wave: its flanks are a pixel or two wide.
        return np.clip(np.sin(frequency * phase) * radius / frequency, -1, 1)

    if name == 'square':  # checker
        pattern, other = wave(u, 5.5) * wave(v, 5.5), 0.4 * colour
    elif name == 'triangle':  # stripes
        pattern, other = wave(u, 13), 0.3 * colour + 0.7
    elif name == 'ring':  # segments, in another hue
        pattern, other = wave(np.arctan2(v, u), 5), np.roll(colour, 1)
    else:  # star: flat
        return colour
    share = 0.5 + 0.5 * pattern[..., None]
    return other + share * (colour - other)


SHAPES = {
    'disc': _disc_distance,
    'square': _spiked(4, np.cos(np.pi / 4)),
    'triangle': _spiked(3, np.cos(np.pi / 3)),
    'star': _spiked(5, STAR_NOTCH),
    'ring': _ring_distance,
}
