"""Data sets as people have them on disk, and the batches of a training step.

A domain is given as LAYOUT:PATH, such as gta5:/data/gta5 or cityscapes:/data/cityscapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .labels import CITYSCAPES_IDS, IGNORE, TRAIN_IDS
from .rng import generator
from .teacher import zero_margins
from .transforms import normalise, random_crop, random_flip

CONVERTED = "_labelTrainIds.png"


class Sample(NamedTuple):
    image: Path
    label: Path  # need not exist where labels are not read


@dataclass(frozen=True)
class Domain:
    """The samples of one split and how to read them.

    size: (height, width) that images and labels are resized to before cropping; None leaves them as they are.
    """

    samples: list[Sample]
    ids: NDArray[np.uint8]
    size: tuple[int, int] | None = None

    def image(self, index: int) -> Tensor:
        """(3, H, W) in [0, 1]."""
        with open_image(self.samples[index].image) as file:
            image = file.convert("RGB")
        if self.size:
            image = image.resize(self.size[::-1], Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    def labels(self, index: int, resized: bool = True) -> Tensor:
        """(H, W) train ids, uint8, 255 where ignored; in the file's own size unless `resized`."""
        path = self.samples[index].label
        with open_image(path) as file:
            if file.mode not in ("L", "P"):
                raise ValueError(f"{path}: expected an 8-bit map of label ids (mode L or P), got mode {file.mode}")
            if self.size and resized:
                file = file.resize(self.size[::-1], Image.Resampling.NEAREST)
            raw = np.array(file)
        ids = TRAIN_IDS if path.name.endswith(CONVERTED) else self.ids
        return torch.from_numpy(ids[raw])

    def __len__(self) -> int:
        return len(self.samples)


def open_image(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: expected an image, could not be read as one") from None


def gta5(root: Path, split: str) -> list[Sample]:
    """images/NAME.png and labels/NAME.png (or NAME_labelTrainIds.png); one split."""
    return [Sample(image, prefer_converted(root / "labels" / image.name)) for image in find(root, "images/*.png")]


def cityscapes(root: Path, split: str) -> list[Sample]:
    """leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png and gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png."""
    suffix = "_leftImg8bit.png"
    samples = []
    for image in find(root, f"leftImg8bit/{split}/*/*{suffix}"):
        name = image.name.removesuffix(suffix)
        raw = root / "gtFine" / split / image.parent.name / f"{name}_gtFine_labelIds.png"
        samples.append(Sample(image, prefer_converted(raw, f"{name}_gtFine{CONVERTED}")))
    return samples


LAYOUTS = {"gta5": gta5, "cityscapes": cityscapes}


def find(root: Path, pattern: str) -> list[Path]:
    """The files of a pattern, sorted; an error says what was expected where."""
    paths = sorted(root.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"{root}: expected files like {root / pattern}, found none")
    return paths


def prefer_converted(raw: Path, converted_name: str | None = None) -> Path:
    converted = raw.with_name(converted_name or raw.stem + CONVERTED)
    return converted if converted.exists() else raw


def open_domain(spec: str, split: str = "train", size: tuple[int, int] | None = None) -> Domain:
    """The domain that LAYOUT:PATH names."""
    layout, colon, path = spec.partition(":")
    if not colon or layout not in LAYOUTS:
        raise ValueError(f"expected LAYOUT:PATH with LAYOUT one of {', '.join(LAYOUTS)}, got {spec!r}")
    return Domain(LAYOUTS[layout](Path(path).expanduser(), split), CITYSCAPES_IDS, size)


@dataclass(frozen=True)
class Batch:
    """What a training step sees: images (B, 3, H, W), normalised; labels (B, H, W), int64."""

    source_images: Tensor
    source_labels: Tensor
    target_images: Tensor
    target_trusted: Tensor  # (B, H, W) of 0 and 1: where pseudo-labels are trusted at all

    def to(self, device: torch.device) -> Batch:
        return Batch(*(t.to(device, non_blocking=True) for t in vars(self).values()))


class Batches(Dataset[Batch]):
    """The batch of step t: sample i depends on (seed, t, i) alone.

    Args:
        source, target: where samples are drawn from, with replacement. Target labels are not read.
        crop: (rows, cols) of the random crops.
        batch_size: samples of each domain in this process.
        first_sample: number of this process's first sample within the whole batch.
        margins: upper and lower rows of target crops whose pseudo-labels are not trusted.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        crop: tuple[int, int],
        batch_size: int,
        seed: int,
        first_sample: int = 0,
        margins: tuple[int, int] = (0, 0),
    ) -> None:
        self.source, self.target, self.crop, self.seed, self.margins = source, target, crop, seed, margins
        self.samples = range(first_sample, first_sample + batch_size)

    def __getitem__(self, step: int) -> Batch:
        source = [self._draw(self.source, "source", step, i) for i in self.samples]
        target = [self._draw(self.target, "target", step, i) for i in self.samples]
        images, labels = zip(*source)
        target_images = normalise(torch.stack([x for x, _ in target]))
        trusted = zero_margins(torch.ones_like(target_images[:, 0]), *self.margins)
        return Batch(normalise(torch.stack(images)), torch.stack(labels).long(), target_images, trusted)

    def _draw(self, domain: Domain, name: str, step: int, sample: int) -> tuple[Tensor, Tensor]:
        gen = generator(self.seed, name, step, sample)
        index = int(torch.randint(len(domain), (), generator=gen))
        image = domain.image(index)
        if name == "source":
            labels = domain.labels(index)
            if labels.shape != image.shape[1:]:
                path, shapes = domain.samples[index].label, (tuple(labels.shape), tuple(image.shape[1:]))
                raise ValueError(f"{path}: expected labels of the image's size {shapes[1]}, got {shapes[0]}")
        else:
            labels = torch.zeros(image.shape[1:], dtype=torch.uint8)
        image, labels = random_crop(image, labels, self.crop, gen)
        return random_flip(image, labels, gen)


def batches(data: Batches, start: int, stop: int, workers: int) -> Iterator[Batch]:
    """The batches of steps start, ..., stop - 1."""
    loader = DataLoader(data, batch_size=None, sampler=range(start, stop), num_workers=workers)
    yield from loader


__all__ = ["IGNORE", "Batch", "Batches", "Domain", "Sample", "batches", "open_domain", "open_image"]
