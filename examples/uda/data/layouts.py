"""Where data sets keep their files: one function per layout, from a folder and a split to samples and classes.

Label files already converted to train ids (NAME_labelTrainIds.png) are preferred to the raw ones beside them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .labels import (
    CITYSCAPES_COLOURS,
    CITYSCAPES_IDS,
    CITYSCAPES_NAMES,
    GTA5_IDS,
    IGNORE,
    MAX_CLASSES,
    SYNTHIA_IDS,
    ClassSet,
    id_table,
)

CONVERTED = "_labelTrainIds.png"
# what network storage, macOS and Windows leave in folders, besides hidden files (Synology, QNAP)
SYSTEM = {"@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "system volume information"}
SYSTEM |= {"@recently-snapshot", "lost+found", "__pycache__"}
NO_IMAGES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # that Pillow names, but cannot read by itself
CLASSES_FORM = '{"classes": [{"name": "road", "ids": [7], "colour": [128, 64, 128]}, ...], "ignore": [0, ...]}'


class Sample(NamedTuple):
    image: Path
    label: Path  # need not exist where labels are not read

    @property
    def converted(self) -> bool:
        """Whether the label file holds train ids."""
        return self.label.name.endswith(CONVERTED)


Found = tuple[list[Sample], ClassSet]
STREETS = ClassSet(CITYSCAPES_NAMES, CITYSCAPES_COLOURS, CITYSCAPES_IDS)


def gta5(root: Path, split: str) -> Found:
    """images/NAME.png and labels/NAME.png; one split."""
    samples = [Sample(image, prefer_converted(root / "labels" / image.name)) for image in find(root, "images/*.png")]
    return samples, ClassSet(CITYSCAPES_NAMES, CITYSCAPES_COLOURS, GTA5_IDS)


def synthia(root: Path, split: str) -> Found:
    """SYNTHIA-RAND-CITYSCAPES: RGB/NAME.png and GT/LABELS/NAME.png (16-bit, class in the first channel); one split."""
    folder = root / "GT" / "LABELS"
    samples = [Sample(image, prefer_converted(folder / image.name)) for image in find(root, "RGB/*.png")]
    return samples, ClassSet(CITYSCAPES_NAMES, CITYSCAPES_COLOURS, SYNTHIA_IDS)


def cityscapes(root: Path, split: str) -> Found:
    """leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png and gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png."""
    return parallel(root, f"leftImg8bit/{split}/*/*_leftImg8bit.png", "gtFine"), STREETS


def acdc(root: Path, split: str) -> Found:
    """rgb_anon/CONDITION/SPLIT/SEQUENCE/NAME_rgb_anon.png and gt/.../NAME_gt_labelTrainIds.png.

    All four conditions; also without that level, as DAFormer's instructions have it.
    """
    conditions = f"rgb_anon/*/{split}/*/*_rgb_anon.png"
    merged = f"rgb_anon/{split}/*/*_rgb_anon.png"
    only_merged = not files_like(root, conditions) and files_like(root, merged)
    return parallel(root, merged if only_merged else conditions, "gt"), STREETS


def darkzurich(root: Path, split: str) -> Found:
    """rgb_anon/SPLIT/night/SEQUENCE/NAME_rgb_anon.png and gt/.../NAME_gt_labelTrainIds.png; training has no labels."""
    return parallel(root, f"rgb_anon/{split}/night/*/*_rgb_anon.png", "gt"), STREETS


def parallel(root: Path, pattern: str, truth: str) -> list[Sample]:
    """IMAGES/.../NAME_IMAGES.png and TRUTH/.../NAME_TRUTH_labelIds.png, IMAGES being the first part of the pattern."""
    images = root / pattern.partition("/")[0]
    samples = []
    for image in find(root, pattern):
        stem = f"{image.name.removesuffix(f'_{images.name}.png')}_{truth}"
        raw = root / truth / image.parent.relative_to(images) / f"{stem}_labelIds.png"
        samples.append(Sample(image, prefer_converted(raw, stem + CONVERTED)))
    return samples


def folder(root: Path, split: str) -> Found:
    """One's own data: images/**/NAME.* and labels/**/NAME.*, below PATH/SPLIT where there is such a folder.

    PATH/classes.json lists the classes; without it they are Cityscapes'.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    own = root / "classes.json"
    classes = replace(read_classes(own) if own.exists() else STREETS, own=own)
    base = root / split if (root / split).is_dir() else root
    if not (base / "images").is_dir():
        raise FileNotFoundError(f"{root}: expected files like {base / 'images/**/*.*'}, found none")
    images = images_below(base / "images")
    if not images:
        raise FileNotFoundError(f"{base / 'images'}: expected images (.png, .jpg, ...), found none")
    labels: dict[Path, Path] = {}  # by path below labels/, without ending
    found = images_below(base / "labels") if (base / "labels").is_dir() else []
    for path in sorted(found, key=lambda path: path.suffix.lower() != ".png"):  # before pictures of the labels
        key = path.relative_to(base / "labels").with_suffix("")
        converted = path.name.endswith(CONVERTED)
        key = key.with_name(key.name.removesuffix("_labelTrainIds")) if converted else key
        labels[key] = path if converted else labels.get(key, path)
    keys = [path.relative_to(base / "images").with_suffix("") for path in images]
    return [Sample(image, labels.get(k, base / "labels" / f"{k}.png")) for image, k in zip(images, keys)], classes


LAYOUTS: dict[str, Callable[[Path, str], Found]] = {
    "gta5": gta5,
    "synthia": synthia,
    "cityscapes": cityscapes,
    "acdc": acdc,
    "darkzurich": darkzurich,
    "folder": folder,
}


def find(root: Path, pattern: str) -> list[Path]:
    """The files of a pattern, sorted (see `files_below`); an error says what was expected where."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    paths = files_like(root, pattern)
    if not paths:
        raise FileNotFoundError(f"{root}: expected files like {root / pattern}, found none")
    return paths


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, sorted; of folders that are links too, but not in circles.

    Hidden and system files and folders are passed over: names that begin with a dot, and those of `SYSTEM`.

    Raises:
        FileNotFoundError: no such folder, or a link to what is not there: images would be missing without a word.
        PermissionError: a folder that may not be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    return sorted(walk(folder, ()))


def walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name.casefold() in SYSTEM:
            continue
        if path.is_dir():
            yield from walk(path, (*above, real))
        elif path.exists():
            yield path
        else:
            raise FileNotFoundError(f"{path}: expected a file or a folder, found a link to what is not there")


def images_below(folder: Path) -> list[Path]:
    """Those of `files_below` that have the ending of an image."""
    return [path for path in files_below(folder) if path.suffix.lower() in image_endings()]


@cache
def image_endings() -> frozenset[str]:
    """The endings that Pillow opens, such as ".png"."""
    Image.init()
    kinds = Image.OPEN.keys() - NO_IMAGES
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in kinds)


def files_like(root: Path, pattern: str) -> list[Path]:
    """The files below `root` whose path from there fits, part by part, a pattern such as "rgb_anon/*/train/*/*.png"."""
    parts = pattern.split("/")
    fixed = next((i for i, part in enumerate(parts) if "*" in part), len(parts) - 1)
    start = root.joinpath(*parts[:fixed])

    def fits(path: Path) -> bool:
        names = path.relative_to(root).parts
        return len(names) == len(parts) and all(map(fnmatchcase, names, parts))

    return [path for path in files_below(start) if fits(path)] if start.is_dir() else []


def prefer_converted(raw: Path, converted_name: str | None = None) -> Path:
    converted = raw.with_name(converted_name or raw.stem + CONVERTED)
    return converted if converted.exists() else raw


def read_classes(path: Path) -> ClassSet:
    """One's own classes, in the order of their train ids.

    Ids that are neither a class's nor under "ignore" are an error where a label file holds them; 255 is ignored.

    Raises:
        ValueError: the file is of another form, or an id stands for two classes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [(str(c["name"]), byte_list(c["ids"]), byte_list(c["colour"])) for c in content["classes"]]
        ignored = byte_list(content.get("ignore", []))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected {CLASSES_FORM}, got {type(error).__name__}: {error}") from error
    if not 2 <= len(entries) <= MAX_CLASSES or any(len(colour) != 3 for _, _, colour in entries):
        alone = "; list what is not that class as a class too" if len(entries) == 1 else ""
        raise ValueError(
            f"{path}: expected 2 to {MAX_CLASSES} classes with colours [r, g, b], got {len(entries)}{alone}"
        )
    raw_ids = [raw for _, ids, _ in entries for raw in ids] + ignored
    twice = sorted({raw for raw in raw_ids if raw_ids.count(raw) > 1})
    if twice or IGNORE in raw_ids[: len(raw_ids) - len(ignored)]:
        raise ValueError(f"{path}: expected every id once and 255 for no class, got {twice or [IGNORE]} otherwise")
    colours = np.array([colour for _, _, colour in entries], dtype=np.uint8)
    table = id_table({raw: train for train, (_, ids, _) in enumerate(entries) for raw in ids}, ignored)
    return ClassSet([name for name, _, _ in entries], colours, table)


def byte_list(values: Any) -> list[int]:
    """The values, if they are a list of whole numbers from 0 to 255."""
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v <= IGNORE for v in values):
        raise ValueError(f"{values} is not a list of whole numbers from 0 to 255")
    return values
