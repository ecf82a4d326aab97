"""The embedded domain pair: procedural street scenes, written once in the layouts of GTA5 and Cityscapes.

The source looks like a clean game, the target like a poor camera in poor light. Both carry raw Cityscapes label ids, so
that the ordinary loaders read them. Image i of a split depends on (seed, split, i) alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..runtime.output import progress
from .camera import game_camera, poor_camera
from .render import Colours, World, render
from .things import draw_things

VERSION = 1  # of the generator: raise it whenever the same seed gives other pixels
MARKER = "scenes.json"
PALETTE_GAP, CAMERA, MOTTLE = 0.75, 0.8, 0.1  # strength of the domain gap: colours, camera effects, blotches
CITIES = {"train": ("altmarkt", "birkenau", "erlenhof", "lindental"), "val": ("novastadt", "seefeld")}
SPLITS = ("source", "train", "val")  # a split's index seeds its images: only ever append

Labelled = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # image (h, w, 3), raw label ids (h, w)

BRIGHT: dict[str, Colours] = {
    "sky": (((0.30, 0.58, 0.95),), 0.04),
    "horizon": (((0.74, 0.87, 0.98),), 0.03),
    "cloud": (((0.97, 0.97, 0.99),), 0.01),
    "road": (((0.29, 0.29, 0.32),), 0.02),
    "sidewalk": (((0.66, 0.59, 0.56),), 0.03),
    "kerb": (((0.82, 0.80, 0.77),), 0.02),
    "building": (((0.72, 0.50, 0.32), (0.66, 0.34, 0.25), (0.80, 0.68, 0.48), (0.56, 0.42, 0.34)), 0.05),
    "roof": (((0.58, 0.26, 0.20), (0.36, 0.33, 0.36)), 0.04),
    "awning": (((0.72, 0.20, 0.18), (0.20, 0.42, 0.34), (0.85, 0.62, 0.22)), 0.05),
    "vegetation": (((0.22, 0.55, 0.16), (0.32, 0.58, 0.18)), 0.05),
    "trunk": (((0.38, 0.26, 0.16),), 0.03),
    "pole": (((0.74, 0.75, 0.74),), 0.05),
    "sign": (((0.84, 0.14, 0.12), (0.84, 0.14, 0.12), (0.12, 0.32, 0.80)), 0.04),
    "plate": (((0.95, 0.93, 0.88),), 0.03),
    "person": (((0.82, 0.28, 0.22), (0.90, 0.60, 0.16), (0.70, 0.22, 0.45)), 0.08),
    "trousers": (((0.20, 0.24, 0.40), (0.22, 0.20, 0.20)), 0.05),
    "skin": (((0.88, 0.68, 0.54), (0.55, 0.38, 0.28)), 0.05),
    "hair": (((0.22, 0.15, 0.10), (0.62, 0.46, 0.22)), 0.04),
    "car": (((0.16, 0.28, 0.78), (0.74, 0.13, 0.13), (0.86, 0.88, 0.92), (0.16, 0.52, 0.60), (0.22, 0.22, 0.30)), 0.07),
}
GREY: dict[str, Colours] = {
    "sky": (((0.70, 0.72, 0.75),), 0.08),
    "horizon": (((0.76, 0.76, 0.76),), 0.07),
    "cloud": (((0.80, 0.80, 0.80),), 0.03),
    "road": (((0.43, 0.42, 0.42),), 0.04),
    "sidewalk": (((0.48, 0.46, 0.44),), 0.05),
    "kerb": (((0.52, 0.51, 0.50),), 0.04),
    "building": (((0.52, 0.49, 0.46),), 0.10),
    "roof": (((0.40, 0.36, 0.34),), 0.06),
    "awning": (((0.42, 0.38, 0.37),), 0.10),
    "vegetation": (((0.25, 0.31, 0.20),), 0.06),
    "trunk": (((0.28, 0.26, 0.23),), 0.04),
    "pole": (((0.38, 0.38, 0.36),), 0.09),
    "sign": (((0.48, 0.40, 0.40),), 0.10),
    "plate": (((0.58, 0.57, 0.55),), 0.08),
    "person": (((0.32, 0.29, 0.30),), 0.12),
    "trousers": (((0.24, 0.24, 0.26),), 0.06),
    "skin": (((0.52, 0.46, 0.42),), 0.08),
    "hair": (((0.20, 0.18, 0.17),), 0.05),
    "car": (((0.40, 0.40, 0.42),), 0.20),
}


def blend(bright: dict[str, Colours], grey: dict[str, Colours], share: float) -> dict[str, Colours]:
    """Every bright colour moved towards its material's grey: share 0 leaves it, share 1 reaches the grey."""

    def mix(a: float, b: float) -> float:
        return (1 - share) * a + share * b

    colours = {}
    for name, (means, spread) in bright.items():
        (red, green, blue), grey_spread = grey[name][0][0], grey[name][1]
        moved = tuple((mix(r, red), mix(g, green), mix(b, blue)) for r, g, b in means)
        colours[name] = (moved, mix(spread, grey_spread))
    return colours


SOURCE = World(
    palette=BRIGHT,
    contrast=1.0,
    focal=(1.05, 1.35),
    eye=(1.5, 2.1),
    horizon=(0.38, 0.48),
    half_road=(4.5, 7.0),
    walk=(2.5, 4.5),
    storeys=(2, 6),
    gap=0.3,
    cars=2.0,
    people=4.0,
    poles=2.5,
    trees=3.0,
    bonnet=False,
)
TARGET = World(
    palette=blend(BRIGHT, GREY, PALETTE_GAP),
    contrast=0.45,
    focal=(1.25, 1.6),
    eye=(1.15, 1.5),
    horizon=(0.42, 0.54),
    half_road=(3.5, 5.5),
    walk=(2.0, 3.5),
    storeys=(3, 7),
    gap=0.18,
    cars=2.5,
    people=5.0,
    poles=3.0,
    trees=4.5,
    bonnet=True,
)


def scene(seed: int, split: str, index: int, size: tuple[int, int]) -> Labelled:
    """One labelled image of a split ("source", "train" or "val"): (rows, cols, 3) and (rows, cols), both uint8."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    if split == "source":
        image, labels, depth = render(rng, SOURCE, size, draw_things)
        return game_camera(rng, image, labels, depth), labels
    image, labels, depth = render(rng, TARGET, size, draw_things)
    return poor_camera(rng, image, labels, depth, strength=CAMERA, mottle=MOTTLE), labels


def paths(root: Path, split: str, index: int) -> tuple[Path, Path]:
    """Where image and labels of a scene lie, in the real data sets' layouts."""
    if split == "source":
        name = f"{index + 1:05d}.png"
        return root / "gta5" / "images" / name, root / "gta5" / "labels" / name
    cities = CITIES[split]
    city = cities[index % len(cities)]
    stem = f"{city}_{index // len(cities):06d}_000019"
    folder, truth = root / "cityscapes" / "leftImg8bit" / split / city, root / "cityscapes" / "gtFine" / split / city
    return folder / f"{stem}_leftImg8bit.png", truth / f"{stem}_gtFine_labelIds.png"


def label_image(labels: NDArray[np.uint8], split: str) -> Image.Image:
    """Raw ids as the data sets store them: GTA5 with a palette, Cityscapes as plain grey values."""
    image = Image.fromarray(labels)
    if split == "source":
        image.putpalette(label_palette())  # turns mode L into P, values untouched
    return image


def label_palette() -> list[int]:
    """256 RGB triples: Cityscapes' colours for the ids that occur here, black elsewhere."""
    colours = {7: (128, 64, 128), 8: (244, 35, 232), 11: (70, 70, 70), 17: (153, 153, 153), 20: (220, 220, 0)}
    colours |= {21: (107, 142, 35), 23: (70, 130, 180), 24: (220, 20, 60), 26: (0, 0, 142)}
    return [value for label in range(256) for value in colours.get(label, (0, 0, 0))]


def save(image: Image.Image, path: Path) -> None:
    """Written beside its place and moved there, so that a PNG that exists is a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    image.save(part, format="PNG")
    os.replace(part, path)


def write_scenes(
    root: Path,
    *,
    seed: int = 0,
    source: int = 400,
    target: int = 400,
    val: int = 160,
    size: tuple[int, int] = (96, 192),
) -> tuple[Path, Path]:
    """Write the domain pair below `root` unless it is there already.

    Args:
        root: folder that gets `gta5/`, `cityscapes/` and the marker `scenes.json`.
        seed: seed of all scenes.
        source, target, val: numbers of source, target training and target validation images. Training labels of
            the target are written too, for an oracle; adaptation does not read them.
        size: rows and columns of every image.

    Returns:
        The roots of the source (GTA5's layout) and of the target (Cityscapes' layout).

    Raises:
        FileExistsError: `root` holds folders of these names that this function did not write.

    Whole scenes of the same settings and generator version are left alone, half-written ones completed, others
    replaced. Under several processes let one write and the others wait.
    """
    root = Path(root)
    counts = {"source": source, "train": target, "val": val}
    gap = [PALETTE_GAP, CAMERA, MOTTLE]
    settings = {"version": VERSION, "gap": gap, "seed": seed, "size": list(size), "counts": counts}
    roots = root / "gta5", root / "cityscapes"
    state = read_marker(root)
    if state == {"settings": settings, "complete": True} and all(folder.is_dir() for folder in roots):
        return roots
    if not state and any(folder.exists() for folder in roots):
        raise FileExistsError(f"{root} holds gta5/ or cityscapes/ but no {MARKER}: not written here, so left alone")
    if state.get("settings") != settings:
        for folder in roots:
            shutil.rmtree(folder, ignore_errors=True)
    write_marker(root, {"settings": settings, "complete": False})
    missing = list(missing_scenes(root, counts))
    for split, index in progress(missing, len(missing), "drawing street scenes", "image"):
        image, labels = scene(seed, split, index, size)
        image_path, label_path = paths(root, split, index)
        save(Image.fromarray(image), image_path)
        save(label_image(labels, split), label_path)
    write_marker(root, {"settings": settings, "complete": True})
    return roots


def missing_scenes(root: Path, counts: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Splits and indices of which image or labels are not on disk."""
    for split, count in counts.items():
        for index in range(count):
            if not all(path.exists() for path in paths(root, split, index)):
                yield split, index


def read_marker(root: Path) -> dict[str, object]:
    """What the marker says; nothing where it is missing or damaged."""
    try:
        state = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_marker(root: Path, state: dict[str, object]) -> None:
    """Replaces the marker in one move."""
    root.mkdir(parents=True, exist_ok=True)
    part = root / f"{MARKER}.{os.getpid()}.part"
    part.write_text(json.dumps(state, indent=1), encoding="utf-8")
    os.replace(part, root / MARKER)
