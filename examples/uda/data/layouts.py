"""Where data sets keep their files: one function per layout, from a folder and a split to samples and classes.

Label files already converted to train ids (NAME_labelTrainIds.png) are preferred to the raw ones beside them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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
from .listing import files_below, files_like, images_below, is_image

CONVERTED = "_labelTrainIds.png"
MAX_ID = 2**16 - 1  # in 16-bit label files
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
    """One's own data: images/**/NAME.* and labels/**/NAME.*; with splits below PATH/SPLIT, or below their own SPLIT.

    PATH/classes.json lists the classes; without it they are Cityscapes'.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    own = root / "classes.json"
    classes = replace(read_classes(own) if os.path.lexists(own) else STREETS, own=own)
    pictures, truth = folders_of(root, split)
    images = images_below(pictures)
    if not images:
        raise FileNotFoundError(f"{pictures}: expected images (.png, .jpg, ...), found none")
    labels: dict[Path, Path] = {}  # by path below labels/, without ending
    found = [path for path in files_below(truth) if is_image(path)] if truth.is_dir() else []
    for path in sorted(found, key=lambda path: path.suffix.lower() != ".png"):  # before pictures of the labels
        key = path.relative_to(truth).with_suffix("")
        converted = path.name.endswith(CONVERTED)
        key = key.with_name(key.name.removesuffix("_labelTrainIds")) if converted else key
        labels[key] = path if converted else labels.get(key, path)
    samples: dict[Path, Sample] = {}
    for image in images:
        key = image.relative_to(pictures).with_suffix("")
        if key in samples:
            other = samples[key].image
            raise ValueError(f"{other} and {image.name} would have the same labels; rename one, or move it elsewhere")
        samples[key] = Sample(image, labels.get(key, truth / f"{key}.png"))
    return list(samples.values()), classes


def folders_of(root: Path, split: str) -> tuple[Path, Path]:
    """Where one's own images and labels of a split are; of all, where "train" or "val" has no folder.

    Raises:
        FileNotFoundError: no folder of images, or none of another split.
    """
    if (root / split).is_dir():
        pictures, truth = root / split / "images", root / split / "labels"
    elif all((root / "images" / name).is_dir() for name in ("train", "val")):
        pictures, truth = root / "images" / split, root / "labels" / split
    elif split in ("train", "val"):
        pictures, truth = root / "images", root / "labels"
    else:
        raise FileNotFoundError(f"{root / split}: no such folder, and no such split of the images")
    if not pictures.is_dir():
        raise FileNotFoundError(f"{root}: expected files like {pictures / '**/*.*'}, found none")
    return pictures, truth


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
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors put a mark before it
        entries = [(str(c["name"]), numbers(c["ids"], MAX_ID), numbers(c["colour"], 255)) for c in content["classes"]]
        ignored = numbers(content.get("ignore", []), MAX_ID)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected {CLASSES_FORM}, got {type(error).__name__}: {error}") from error
    if not 2 <= len(entries) <= MAX_CLASSES or any(len(colour) != 3 for _, _, colour in entries):
        alone = "; list what is not that class as a class too" if len(entries) == 1 else ""
        raise ValueError(
            f"{path}: expected 2 to {MAX_CLASSES} classes with colours [r, g, b], got {len(entries)}{alone}"
        )
    names = [name for name, _, _ in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: expected a name of its own for every class, got {names}")
    raw_ids = [raw for _, ids, _ in entries for raw in ids] + ignored
    twice = sorted({raw for raw in raw_ids if raw_ids.count(raw) > 1})
    if twice or IGNORE in raw_ids[: len(raw_ids) - len(ignored)]:
        raise ValueError(f"{path}: expected every id once and 255 for no class, got {twice or [IGNORE]} otherwise")
    colours = np.array([colour for _, _, colour in entries], dtype=np.uint8)
    table = id_table({raw: train for train, (_, ids, _) in enumerate(entries) for raw in ids}, ignored)
    return ClassSet(names, colours, table)


def numbers(values: Any, highest: int) -> list[int]:
    """The values, if they are a list of whole numbers from 0 to the highest."""
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v <= highest for v in values):
        raise ValueError(f"{values} is not a list of whole numbers from 0 to {highest}")
    return values
