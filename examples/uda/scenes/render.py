"""Draws one procedural street: a small world in metres, seen through a pinhole camera.

Axes: x to the right, y up from the ground, z forward from the camera, all in metres. `render` returns a clean image
with its labels and depths; what stands on the ground is drawn by `things`, and what a bad camera makes of it is
`camera`'s business. Everything is a polygon, drawn from far to near.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float64]
Rng = np.random.Generator
Range = tuple[float, float]
Colours = tuple[tuple[tuple[float, float, float], ...], float]  # RGB means to choose from, in [0, 1]; spread

# Raw Cityscapes label ids of everything drawn here.
EGO, ROAD, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION, SKY, PERSON, CAR = 1, 7, 8, 11, 17, 20, 21, 23, 24, 26

SUPERSAMPLE = 3  # odd, so that the middle sample of a pixel is its centre: labels take that one
NEAR = 0.6  # metres; nothing nearer is drawn
HAZE = 45.0  # metres over which the depth layer rises to 63 %


@dataclass(frozen=True)
class World:
    """What distinguishes the two domains before any camera effect: colours and the statistics of the layout."""

    palette: dict[str, Colours]  # by material
    contrast: float  # of painted details (windows, markings, tiles) against what carries them
    focal: Range  # in image heights
    eye: Range  # camera height in metres
    horizon: Range  # in image heights from the top
    half_road: Range  # metres
    walk: Range  # pavement width in metres
    storeys: tuple[int, int]
    gap: float  # probability that a plot has no building
    cars: float  # expected numbers per scene
    people: float
    poles: float
    trees: float
    bonnet: bool  # the camera car's own bonnet at the lower edge


@dataclass(frozen=True)
class View:
    """A pinhole camera with roll, zoom and shift; scene units are image heights."""

    rows: int  # pixels of the supersampled canvas
    cols: int
    focal: float
    eye: float
    horizon: float
    vanish: float
    roll: float  # radians
    zoom: float
    shift: tuple[float, float]  # down, right

    def affine(self) -> tuple[Array, Array]:
        """Matrix (2, 2) and offset (2,) that take a line of sight's slopes x/z, (y - eye)/z to canvas pixels x, y."""
        middle = np.array([0.5 * self.cols / self.rows, 0.5])
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        turn = np.array([[cos, sin], [-sin, cos]]) * self.zoom * self.rows
        vanishing_point = np.array([self.vanish, self.horizon])
        offset = (vanishing_point - middle) @ turn + (middle + np.array(self.shift)[::-1]) * self.rows
        return np.diag([self.focal, -self.focal]) @ turn, offset


class Pen:
    """Four aligned layers of one canvas: colour, label id, light that falls on it, depth."""

    def __init__(self, view: View) -> None:
        size = (view.cols, view.rows)
        self.view = view
        self.matrix, self.offset = view.affine()
        self.layers = [Image.new("RGB", size), Image.new("L", size), Image.new("L", size, 255), Image.new("L", size)]
        self.colour, self.label, self.light, self.depth = (ImageDraw.Draw(layer) for layer in self.layers)

    def project(self, points: Array) -> Array:
        """World points (..., 3) in metres -> canvas pixels (..., 2) as x, y."""
        slopes: Array = (points[..., :2] - (0.0, self.view.eye)) / np.maximum(points[..., 2:], NEAR)
        return slopes @ self.matrix + self.offset

    def fill(self, points: Array, colour: Array, label: int) -> None:
        """A lit surface with corners (n, 3), a colour (3,) in [0, 1] and a label id."""
        pixels = self.project(points).ravel().tolist()
        self.colour.polygon(pixels, rgb(colour))
        self.label.polygon(pixels, label)
        self.light.polygon(pixels, 255)
        self.depth.polygon(pixels, int(255 * (1 - np.exp(-points[:, 2].mean() / HAZE))))

    def paint(self, points: Array, colour: Array) -> None:
        """A detail with corners (n, 3) on a surface already there, or many of them (m, n, 3): colour alone changes."""
        ink = rgb(colour)
        for corners in self.project(points).reshape(-1, 2 * points.shape[-2]).tolist():
            self.colour.polygon(corners, ink)

    def shade(self, points: Array, light: float) -> None:
        """A cast shadow: corners (n, 3), share of the light that is left. Surfaces filled later are lit again."""
        self.light.polygon(self.project(points).ravel().tolist(), int(255 * light))

    def finish(self) -> tuple[Array, NDArray[np.uint8], Array]:
        """Image (h, w, 3) in [0, 1], label ids (h, w), depth (h, w) in [0, 1], at the final size."""
        colour, light, depth = (np.asarray(self.layers[k].reduce(SUPERSAMPLE), np.float64) / 255 for k in (0, 2, 3))
        centre = slice(SUPERSAMPLE // 2, None, SUPERSAMPLE)
        return colour * light[..., None], np.asarray(self.layers[1])[centre, centre].copy(), depth


def rgb(colour: Array) -> tuple[int, int, int]:
    """A colour (3,) in [0, 1] as Pillow wants it; what lies outside is clipped."""
    red, green, blue = (min(max(int(255 * v), 0), 255) for v in colour.tolist())
    return red, green, blue


def pick(rng: Rng, world: World, material: str) -> Array:
    """One instance's colour (3,): one of the material's means, a common deviation and a smaller one per channel."""
    means, spread = world.palette[material]
    mean = np.array(means[rng.integers(len(means))])
    return np.clip(mean + spread * (rng.normal() + 0.4 * rng.normal(size=3)), 0.03, 0.97)


def floor(x: Range, z: Range) -> Array:
    """A rectangle (4, 3) on the ground."""
    return np.array([[x[0], 0, z[0]], [x[1], 0, z[0]], [x[1], 0, z[1]], [x[0], 0, z[1]]])


def wall_along(x: float, y: Range, z: Range) -> Array:
    """An upright rectangle (4, 3) parallel to the street."""
    return np.array([[x, y[0], z[0]], [x, y[1], z[0]], [x, y[1], z[1]], [x, y[0], z[1]]])


def wall_across(x: Range, y: Range, z: float) -> Array:
    """An upright rectangle (4, 3) that faces the camera."""
    return np.array([[x[0], y[0], z], [x[0], y[1], z], [x[1], y[1], z], [x[1], y[0], z]])


def disc(centre: tuple[float, float, float], radius: Range, rough: Array | float = 1.0, corners: int = 14) -> Array:
    """An ellipse (corners, 3) that faces the camera; `rough` (corners,) scales its radii."""
    angle = np.arange(corners) * (2 * np.pi / corners)
    x, y = radius[0] * rough * np.cos(angle), radius[1] * rough * np.sin(angle)
    return np.stack([centre[0] + x, centre[1] + y, np.full(corners, centre[2])], -1)


def draw_sky(pen: Pen, rng: Rng, world: World) -> None:
    """Horizontal bands from the horizon's pale to the zenith's full colour."""
    zenith, pale = pick(rng, world, "sky"), pick(rng, world, "horizon")
    for k, height in enumerate(np.linspace(-0.6, 1.2, 37)[:-1]):
        share = np.clip(height / 0.7, 0, 1) ** 0.7
        band = wall_across((-9e3, 9e3), (1e3 * height, 1e3 * (3.0 if k == 35 else height + 0.06)), 1e3)
        pen.fill(band, pale + (zenith - pale) * share, SKY)


def draw_clouds(pen: Pen, rng: Rng, world: World) -> None:
    """Flat groups of ellipses, brighter than the sky."""
    colour = pick(rng, world, "cloud")
    for _ in range(rng.poisson(1.5)):
        x, y = rng.uniform(-900, 900), rng.uniform(150, 420)
        for _ in range(5):
            centre = x + rng.normal() * 60, y + rng.normal() * 8, 1e3
            pen.paint(disc(centre, (rng.uniform(30, 80), rng.uniform(8, 20))), colour)


@dataclass(frozen=True)
class Street:
    """The plan of one street, in metres; x = 0 is the camera."""

    left: float  # the road's edges
    right: float
    walk: float
    crossing: Range  # a side street's extent in z

    def house_line(self, side: int) -> float:
        """Where the plots begin on the left (-1) or right (+1)."""
        return self.right + self.walk if side > 0 else self.left - self.walk

    def kerb(self, side: int) -> float:
        """The road's edge on the left (-1) or right (+1)."""
        return self.right if side > 0 else self.left


def plan_street(rng: Rng, world: World) -> Street:
    """Widths, the camera's place across the road and, in two of five scenes, a side street."""
    half, walk = rng.uniform(*world.half_road), rng.uniform(*world.walk)
    middle = rng.uniform(-0.55, 0.55) * half
    start = rng.uniform(9, 40) if rng.random() < 0.4 else 1e3
    return Street(middle - half, middle + half, walk, (start, start + rng.uniform(6, 9)))


def draw_ground(pen: Pen, rng: Rng, world: World, street: Street) -> None:
    """Pavement everywhere, the road and a side street on it, kerbs; in strips so that depth follows the ground."""
    pavement, asphalt, kerb = (pick(rng, world, name) for name in ("sidewalk", "road", "kerb"))
    edges = np.geomspace(NEAR, 900, 26)
    for near, far in zip(edges[-2::-1], edges[:0:-1], strict=True):
        pen.fill(_strip(near, far), pavement, SIDEWALK)
    _tile(pen, pavement * (1 - 0.22 * world.contrast), street)
    pen.fill(_strip(*street.crossing), asphalt * 0.97, ROAD)
    for near, far in zip(edges[-2::-1], edges[:0:-1], strict=True):
        pen.fill(floor((street.left, street.right), (near, far)), asphalt, ROAD)
        if far < street.crossing[0] or near > street.crossing[1]:
            for x, width in ((street.left, -0.28), (street.right, 0.28)):
                pen.paint(floor((x, x + width), (near, far)), kerb)
    _mark(pen, rng, asphalt, world, street)


def _strip(near: float, far: float) -> Array:
    """Ground (4, 3) between two distances, a little wider than any view of it."""
    return np.array([[-5 * near, 0, near], [5 * near, 0, near], [5 * far, 0, far], [-5 * far, 0, far]])


def _tile(pen: Pen, colour: Array, street: Street) -> None:
    """Joints between the pavement's slabs."""
    for z in np.arange(2.0, 26.0, 1.5):
        for side in (-1, 1):
            pen.paint(floor((street.kerb(side), street.house_line(side)), (z, z + 0.06 + 0.004 * z)), colour)
    for side in (-1, 1):
        x = 0.5 * (street.kerb(side) + street.house_line(side))
        pen.paint(floor((x - 0.03, x + 0.03), (1.0, 40.0)), colour)


def _mark(pen: Pen, rng: Rng, asphalt: Array, world: World, street: Street) -> None:
    """A dashed line between the lanes, edge lines, sometimes a zebra crossing."""
    paint = asphalt + (np.array([0.95, 0.95, 0.9]) - asphalt) * world.contrast * rng.uniform(0.7, 1.0)
    middle, start = 0.5 * (street.left + street.right), rng.uniform(0, 6)
    for z in np.arange(start - 3, 110, 6.0):
        pen.paint(floor((middle - 0.09, middle + 0.09), (max(z, NEAR), max(z + 3, NEAR))), paint)
    if rng.random() < 0.5:
        for x in (street.left + 0.5, street.right - 0.6):
            pen.paint(floor((x, x + 0.12), (NEAR, min(street.crossing[0], 150))), paint)
    if rng.random() < 0.35:
        z = rng.uniform(5, 16)
        for x in np.arange(street.left + 0.5, street.right - 0.6, 1.1):
            pen.paint(floor((x, x + 0.55), (z, z + 2.6)), paint)


def cast_shadows(pen: Pen, rng: Rng, street: Street, light: float) -> None:
    """The shadows that the houses of one side throw over the pavement and into the road."""
    side = rng.choice((-1, 1))
    z = rng.uniform(-6, 4)
    while z < 70:
        length, reach = rng.uniform(6, 16), rng.uniform(1.5, 9)
        inner = street.house_line(side) - side * reach
        slant = rng.uniform(-2, 2)
        shadow = floor((street.house_line(side) + side * 9, inner), (max(z, NEAR), max(z + length, NEAR)))
        shadow[1:3, 2] += slant
        pen.shade(shadow, light)
        z += length + rng.uniform(0, 6)


def render(
    rng: Rng, world: World, size: tuple[int, int], things: Callable[[Pen, Rng, World, Street], None]
) -> tuple[Array, NDArray[np.uint8], Array]:
    """One scene: image (h, w, 3) in [0, 1], raw label ids (h, w), depth (h, w) in [0, 1].

    `things` draws what stands on the ground; `size` is rows and columns.
    """
    rows, cols = size
    view = View(
        rows=rows * SUPERSAMPLE,
        cols=cols * SUPERSAMPLE,
        focal=rng.uniform(*world.focal),
        eye=rng.uniform(*world.eye),
        horizon=rng.uniform(*world.horizon),
        vanish=cols / rows * rng.uniform(0.36, 0.64),
        roll=rng.uniform(-0.13, 0.13),
        zoom=rng.uniform(0.9, 1.25),
        shift=(rng.uniform(-0.1, 0.1), rng.uniform(-0.15, 0.15)),
    )
    pen = Pen(view)
    street = plan_street(rng, world)
    draw_sky(pen, rng, world)
    draw_clouds(pen, rng, world)
    draw_ground(pen, rng, world, street)
    if rng.random() < 0.6:
        cast_shadows(pen, rng, street, rng.uniform(0.6, 0.8))
    things(pen, rng, world, street)
    return pen.finish()
