"""What the camera makes of a clean scene: the part of the domain gap that is not colour or layout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .render import BUILDING, PERSON, ROAD, SIDEWALK, SKY, VEGETATION, Array, Rng

# Contrast of the surfaces' texture; what is not listed has PLAIN.
GRAIN = {ROAD: 0.07, SIDEWALK: 0.08, BUILDING: 0.09, VEGETATION: 0.2, SKY: 0.025, PERSON: 0.1}
PLAIN = 0.06


def smooth_noise(rng: Rng, shape: tuple[int, int], cell: float) -> Array:
    """Noise (h, w) of roughly unit variance whose blobs are about `cell` pixels wide."""
    rows, cols = shape
    coarse = rng.normal(size=(int(rows / cell) + 2, int(cols / cell) + 2)).astype(np.float32)
    return 1.3 * np.asarray(Image.fromarray(coarse).resize((cols, rows), Image.Resampling.BICUBIC), np.float64)


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur of (h, w, 3) with edge padding; sigma in pixels."""
    radius = int(np.ceil(2.5 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        pad = [(radius, radius) if k == axis else (0, 0) for k in range(3)]
        padded, length = np.pad(image, pad, mode="edge"), image.shape[axis]
        image = sum(tap * np.take(padded, range(k, k + length), axis) for k, tap in enumerate(taps))
    return image


def texture(rng: Rng, image: Array, labels: NDArray[np.uint8], strength: float) -> Array:
    """Surfaces (h, w, 3) get a grain of two sizes, by material."""
    table = np.full(256, PLAIN)
    table[list(GRAIN)] = list(GRAIN.values())
    unit = labels.shape[0] / 96
    fine, coarse = (smooth_noise(rng, labels.shape, max(cell * unit, 1.0)) for cell in (1.6, 4.5))
    grain = 0.7 * fine + 0.7 * coarse
    return image * (1 + strength * table[labels] * grain)[..., None]


def blotches(rng: Rng, shape: tuple[int, int]) -> Array:
    """Noise (h, w, 3) in blobs of a few pixels at a height of 96, mostly common to the channels."""

    def layer() -> Array:
        return smooth_noise(rng, shape, shape[0] / 13) + 0.5 * smooth_noise(rng, shape, shape[0] / 26)

    common = layer()
    return np.stack([0.9 * common + 0.4 * layer() for _ in range(3)], -1)


def game_camera(rng: Rng, image: Array, labels: NDArray[np.uint8], depth: Array) -> NDArray[np.uint8]:
    """The source's renderer: a touch of texture, haze and dithering."""
    image = texture(rng, image, labels, 0.25)
    veil = 0.18 * depth[..., None] ** 2 * (labels != SKY)[..., None]
    image = image * (1 - veil) + veil * np.array([0.75, 0.85, 0.95])
    return quantise(image + rng.normal(size=image.shape) * 0.006)


def poor_camera(
    rng: Rng, image: Array, labels: NDArray[np.uint8], depth: Array, *, strength: float, mottle: float
) -> NDArray[np.uint8]:
    """The target's: texture, fog, uneven light, colour cast, gamma, blur and sensor noise.

    `strength` scales all of them; `mottle` is the contrast of coloured blotches a few pixels wide, which make a
    pixel's colour unreliable, so that only its surroundings tell what it shows.
    """
    rows, cols = labels.shape
    image = texture(rng, image, labels, 1.2 * strength)
    image = image * np.exp(mottle * blotches(rng, labels.shape))
    fog = strength * rng.uniform(0.05, 0.6) * depth[..., None]
    image = image * (1 - fog) + fog * rng.uniform(0.6, 0.75)
    across, down = np.linspace(-1, 1, cols)[None], np.linspace(-1, 1, rows)[:, None]
    slope = rng.uniform(-0.25, 0.25, 2)
    image *= (1 + strength * (slope[0] * across + slope[1] * down - 0.12 * (across**2 + down**2)))[..., None]
    image *= 1 + strength * rng.normal(size=3) * 0.05
    image = np.clip(image, 0, 1) ** np.exp(strength * rng.uniform(-0.4, 0.4))
    image = blur(image, (0.3 + strength * rng.uniform(0.2, 0.8)) * rows / 96)
    image *= rng.uniform(1 - 0.25 * strength, 1 + 0.1 * strength)
    noise = 0.8 * rng.normal(size=(rows, cols, 1)) + 0.6 * rng.normal(size=image.shape)
    return quantise(image + noise * strength * rng.uniform(0.02, 0.055))


def quantise(image: Array) -> NDArray[np.uint8]:
    """[0, 1] -> 8 bits; what lies outside is clipped."""
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)
