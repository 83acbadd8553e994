"""Scenes out of distribution: an object kind never seen in training, and corruptions.

The unknown object is a cross with dots: neither shape nor texture is that of a class.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

STRENGTHS = (1, 2, 3)


def add_unknown(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Paint a cross over a scene, in place.

    Args:
        rng (np.random.Generator): Decides where and how.
        image (np.ndarray): Shape (H, W, 3) uint8.

    Returns:
        np.ndarray: Where it is, shape (H, W) bool.
    """
    height, width = image.shape[:2]
    radius = rng.uniform(0.2, 0.28) * min(height, width)
    y, x = np.indices((height, width)) + 0.5
    y = (y - rng.uniform(0.25, 0.75) * height) / radius
    x = (x - rng.uniform(0.25, 0.75) * width) / radius
    turn = rng.uniform(0, 2 * np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    short, long = np.sort(np.abs([u, v]), axis=0)
    inside = (short < 0.3) & (long < 1)
    dots = np.hypot((3 * u) % 1 - 0.5, (3 * v) % 1 - 0.5) < 0.3
    colours = rng.integers(60, 256, (2, 3))
    image[inside] = colours[dots[inside].astype(int)]
    return inside


def noise(rng: np.random.Generator, image: np.ndarray, strength: int) -> np.ndarray:
    """Add Gaussian noise of 12, 25 or 50 grey values."""
    return image + rng.normal(0, (12, 25, 50)[strength - 1], image.shape)


def blur(rng: np.random.Generator, image: np.ndarray, strength: int) -> np.ndarray:
    """Blur with a Gaussian of 1, 2 or 3 % of the short side."""
    sigma = 0.01 * strength * min(image.shape[:2])
    return gaussian_filter(image, (sigma, sigma, 0))


def night(rng: np.random.Generator, image: np.ndarray, strength: int) -> np.ndarray:
    """Darken to 50, 30 or 15 %, bluish, with the noise of a sensor."""
    level = (0.5, 0.3, 0.15)[strength - 1]
    dark = image * level * np.array([0.8, 0.9, 1.1])
    return dark + rng.normal(0, 4 * strength, image.shape)


def fog(rng: np.random.Generator, image: np.ndarray, strength: int) -> np.ndarray:
    """Mix with light grey, 30, 50 or 70 %, denser towards the top."""
    share = (0.3, 0.5, 0.7)[strength - 1]
    share = share * np.linspace(1.2, 0.8, len(image))[:, None, None]
    return image * (1 - share) + 220 * share


CORRUPTIONS = dict(noise=noise, blur=blur, night=night, fog=fog)


def corrupt(
    rng: np.random.Generator, image: np.ndarray, kind: str, strength: int
) -> np.ndarray:
    """Corrupt an image.

    Args:
        rng (np.random.Generator): Decides what is random.
        image (np.ndarray): Shape (H, W, 3) uint8.
        kind (str): A key of `CORRUPTIONS`.
        strength (int): 1, 2 or 3.

    Returns:
        np.ndarray: Shape (H, W, 3) uint8.
    """
    changed = CORRUPTIONS[kind](rng, image.astype(np.float32), strength)
    return changed.clip(0, 255).round().astype(np.uint8)
