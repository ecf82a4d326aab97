"""A second target: the same streets at night, in Dark Zurich's layout.

What a camera meets there: lamps hung over the street and their pools of light, lit windows, the lights of cars, one's
own headlamps, a wet road that mirrors all of them, glare, and the noise of long exposures. Image i of a split depends
on (split, i) alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from trainers import scenes, scenes_camera, scenes_car, scenes_render, scenes_things

Array = NDArray[np.float64]
SEQUENCES = {"train": ("GP010001", "GP010002", "GP010003", "GP010004"), "val": ("GP020001", "GP020002")}
COUNTS = {"train": 400, "val": 160}
DARKER, SHINES = 0.55, 0.8  # all materials' colours are scaled by the first, so that above the second only lights are
WARM, WHITE, RED = np.array([1.0, 0.76, 0.44]), np.array([1.0, 0.96, 0.86]), np.array([1.0, 0.1, 0.06])
MOON = np.array([0.75, 0.85, 1.15])
WET = {scenes_render.ROAD: 1.0, scenes_render.SIDEWALK: 0.5}

BY_DAY = scenes.blend(scenes.BRIGHT, scenes.GREY, 0.5)
NIGHT = replace(
    scenes.TARGET,
    palette={
        name: (tuple((DARKER * r, DARKER * g, DARKER * b) for r, g, b in means), DARKER * spread)
        for name, (means, spread) in BY_DAY.items()
    },
    contrast=0.6,
)


class NightPen(scenes_render.Pen):
    """Keeps a fifth layer: where something shines that nothing hides."""

    def __init__(self, view: scenes_render.View) -> None:
        super().__init__(view)
        self.layers.append(Image.new("L", (view.cols, view.rows)))
        self.shining = ImageDraw.Draw(self.layers[4])

    def fill(self, points: Array, colour: Array, label: int) -> None:
        super().fill(points, colour, label)
        self.shining.polygon(self.project(points).ravel().tolist(), 0)

    def paint(self, points: Array, colour: Array) -> None:
        super().paint(points, colour)
        for corners in self.project(points).reshape(-1, 2 * points.shape[-2]).tolist():
            self.shining.polygon(corners, 255 if colour.max() > SHINES else 0)

    def seen(self, point: tuple[float, float, float]) -> tuple[Array, float]:
        """Where a point in metres lies, in pixels of the final image, and how many of them a metre is there."""
        ends = self.project(np.array([point, (point[0], point[1] + 1, point[2])])) / scenes_render.SUPERSAMPLE
        return ends[0], float(np.linalg.norm(ends[1] - ends[0]))


def night_scene(split: str, index: int, size: tuple[int, int] = (96, 192)) -> scenes.Labelled:
    """One labelled image of a split: (rows, cols, 3) and (rows, cols), both uint8."""
    rng = np.random.default_rng([7, list(SEQUENCES).index(split), index])
    kept = {}

    def things(pen: NightPen, rng: np.random.Generator, world: scenes.World, street: scenes_render.Street) -> None:
        scenes_things.draw_things(pen, rng, world, street)
        middle, first = 0.5 * (street.left + street.right), rng.uniform(7, 20)
        lamps = [(middle + rng.normal() * 0.5, rng.uniform(6.5, 8), z) for z in np.arange(first, 130, 22.0)]
        lamps = [lamp for lamp in lamps if rng.random() < 0.85]  # some are out
        for x, y, z in lamps:
            pen.paint(scenes_render.disc((x, y, z), (0.3, 0.16)), WHITE)
        kept.update(pen=pen, lamps=lamps)

    def glass(rng: np.random.Generator, colour: Array, world: scenes.World) -> Array:
        """A house's panes: lit or dark."""
        lit = np.array([1.0, rng.uniform(0.72, 0.95), rng.uniform(0.4, 0.8)])
        return lit if rng.random() < 0.35 else 0.3 * colour

    def lamp(world: scenes.World, rear: bool, colour: Array) -> Array:
        return RED if rear else WHITE

    with (
        patch.object(scenes_render, "Pen", NightPen),
        patch.object(scenes_things, "_glass", glass),
        patch.object(scenes_car, "_lamp", lamp),
    ):
        clean, labels, depth = scenes_render.render(rng, NIGHT, size, things)
    return night_camera(rng, clean / DARKER, labels, depth, kept["pen"], kept["lamps"]), labels


def night_camera(
    rng: np.random.Generator,
    clean: Array,
    labels: NDArray[np.uint8],
    depth: Array,
    pen: NightPen,
    lamps: list[tuple[float, float, float]],
) -> NDArray[np.uint8]:
    """What a camera makes of the street by its lamps: light, reflections, glare, noise."""
    rows, cols = labels.shape
    shining = np.asarray(pen.layers[4].reduce(scenes_render.SUPERSAMPLE), np.float64)[..., None] / 255
    surface = scenes_camera.texture(rng, clean, labels, 1.0)
    emitted = shining * clean * rng.uniform(0.45, 0.75)
    image = surface * illumination(rng, depth, pen, lamps) * (1 - shining) + emitted
    image += rng.uniform(0, 0.08) * depth[..., None] * WARM  # the town's light in the haze
    glare = 0.5 * scenes_camera.blur(emitted, 1.5 * rows / 96) + 0.5 * scenes_camera.blur(emitted, 5 * rows / 96)
    wet = np.zeros(256)
    wet[list(WET)] = list(WET.values())
    ripples = np.clip(0.7 + 0.5 * scenes_camera.smooth_noise(rng, (rows, cols), 3 * rows / 96), 0, 1.5)
    image += rng.uniform(0, 0.9) * (wet[labels] * ripples)[..., None] * mirrored(image + glare, pen)
    image += rng.uniform(0.4, 0.9) * glare
    across, down = np.linspace(-1, 1, cols)[None], np.linspace(-1, 1, rows)[:, None]
    image *= (1 - 0.2 * (across**2 + down**2))[..., None] * (1 + 0.06 * rng.normal(size=3))
    image = np.clip(rng.uniform(0.9, 1.7) * image, 0, 1) ** rng.uniform(0.6, 0.85)
    image = scenes_camera.blur(image, rng.uniform(0.3, 0.9) * rows / 96)
    noise = 0.7 * rng.normal(size=(rows, cols, 1)) + 0.7 * rng.normal(size=image.shape)
    return scenes_camera.quantise(image + noise * rng.uniform(0.02, 0.05) * (0.6 + np.sqrt(np.clip(image, 0, 1))))


def illumination(
    rng: np.random.Generator, depth: Array, pen: NightPen, lamps: list[tuple[float, float, float]]
) -> Array:
    """Light (h, w, 3) that falls on what is seen: the sky's, the lamps' pools, one's own headlamps."""
    rows, cols = depth.shape
    down, across = np.mgrid[:rows, :cols]
    metres = -scenes_render.HAZE * np.log(np.maximum(1 - depth, 1e-3))
    light = np.full((rows, cols, 3), rng.uniform(0.05, 0.12)) * MOON
    tint = WARM + (WHITE - WARM) * rng.random()  # sodium or LED, one kind per street
    for x, _, z in lamps:
        (u, v), scale = pen.seen((x, 1.5, z))
        pool = ((across - u) / (8 * scale)) ** 2 + ((down - v) / (4.5 * scale)) ** 2 + ((metres - z) / 11) ** 2
        light += 0.9 * np.exp(-pool)[..., None] * tint
    (u, v), scale = pen.seen((0.0, 0.3, 11.0))
    beam = ((across - u) / (4 * scale)) ** 2 + ((down - v) / (1.6 * scale)) ** 2
    return light + rng.uniform(0.3, 0.8) * (np.exp(-beam) * np.exp(-metres / 25))[..., None] * WHITE


def mirrored(image: Array, pen: NightPen) -> Array:
    """What a wet road shows at each pixel: what is as far above the horizon as the pixel is below, drawn out downwards.

    Of smooth water at the camera's feet that would be exact; asphalt smears it.
    """
    rows, cols = image.shape[:2]
    (left, right) = (
        pen.project(np.array([[x, pen.view.eye, 1e5]]))[0] / scenes_render.SUPERSAMPLE for x in (-5e4, 5e4)
    )
    horizon = left[1] + (np.arange(cols) - left[0]) * (right[1] - left[1]) / (right[0] - left[0])
    down = np.arange(rows)[:, None]
    source = np.clip(np.rint(2 * horizon - down), 0, rows - 1).astype(int)
    found = image[source, np.arange(cols)] * (down > horizon)[..., None]
    taps = np.exp(-(np.arange(-8, 9) ** 2) / 32.0)
    padded = np.pad(found, [(8, 8), (0, 0), (0, 0)], mode="edge")
    return np.asarray(sum(tap * padded[k : k + rows] for k, tap in enumerate(taps)) / taps.sum())


def paths(root: Path, split: str, index: int) -> tuple[Path, Path]:
    """Where image and labels lie, as in Dark Zurich; training images have no labels."""
    names = SEQUENCES[split]
    sequence = names[index % len(names)]
    stem = f"{sequence}_frame_{index // len(names):06d}"
    folder = Path(split) / "night" / sequence
    return root / "rgb_anon" / folder / f"{stem}_rgb_anon.png", root / "gt" / folder / f"{stem}_gt_labelIds.png"


def write_night(root: Path) -> None:
    """Writes what is missing below `root`."""
    for split, count in COUNTS.items():
        for index in range(count):
            image_path, label_path = paths(root, split, index)
            if image_path.exists():
                continue
            image, labels = night_scene(split, index)
            if split == "val":
                scenes.save(Image.fromarray(labels), label_path)
            scenes.save(Image.fromarray(image), image_path)
