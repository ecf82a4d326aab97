"""Domains, and the batches of a training step.

A domain is given as LAYOUT:PATH, such as gta5:/data/gta5 or cityscapes:/data/cityscapes; see layouts.py.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .images import image_size, open_image, read_ids
from .labels import IGNORE, ClassSet
from .layouts import LAYOUTS, Sample
from .rare_class import RareClassSampler, crop_with_class
from .rng import generator
from .teacher import zero_margins
from .transforms import normalise, pad, random_crop, random_flip


@dataclass(frozen=True)
class Domain:
    """The samples of one split and how to read them.

    spec: LAYOUT:PATH.
    size: (height, width) of the frame that images and labels are resized to fit before cropping, proportions kept, as
        the published recipes do: (720, 1280) makes GTA5's 1052 x 1914 704 x 1280. None leaves them as they are.
    """

    spec: str
    samples: list[Sample]
    classes: ClassSet
    size: tuple[int, int] | None = None

    @property
    def root(self) -> Path:
        return Path(self.spec.partition(":")[2]).expanduser()

    def pixels(self, index: int) -> Tensor:
        """(3, H, W) uint8, RGB."""
        image = np.array(open_image(self.samples[index].image).convert("RGB"))
        return self._resize(torch.from_numpy(image).permute(2, 0, 1))

    def image(self, index: int) -> Tensor:
        """(3, H, W) in [0, 1]."""
        return self.pixels(index).float() / 255

    def labels(self, index: int, resized: bool = True) -> Tensor:
        """(H, W) train ids, uint8, 255 where ignored; in the file's own size unless `resized`."""
        sample = self.samples[index]
        labels = torch.from_numpy(self.classes.train_ids(read_ids(sample.label), sample.label, sample.converted))
        return self._resize(labels) if resized else labels

    def labelled(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels (3, H, W) and labels (H, W) of one size.

        Raises:
            ValueError: the two files differ in size, see `check_size`.
        """
        labels = self.labels(index, resized=False)
        self.check_size(index, labels)
        pixels, labels = self.pixels(index), self._resize(labels)
        if labels.shape != pixels.shape[1:]:
            labels = F.interpolate(labels[None, None], pixels.shape[1:], mode="nearest-exact")[0, 0]
        return pixels, labels

    def check_size(self, index: int, labels: Tensor) -> None:
        """Raises ValueError where labels in their file's own size are not of their image's.

        Less than 1 % passes with a warning: some of GTA5's pairs differ by a few pixels.
        """
        image, path = self.samples[index]
        expected, got = image_size(image), tuple(labels.shape)
        if any(abs(a - b) > 0.01 * b for a, b in zip(got, expected)):
            raise ValueError(f"{path}: expected labels of the image's size {expected}, got {got}")
        if got != expected:
            warnings.warn(f"{path}: labels {got} are resized to their image's size {expected}", stacklevel=2)

    def check_labels(self) -> None:
        """Raises FileNotFoundError, at once instead of in the middle of a run, where an image has no label file."""
        missing = [sample for sample in self.samples if not sample.label.exists()]
        if missing:
            image, label = missing[0]
            counts = f"{len(missing)} of {len(self)} images have no labels"
            raise FileNotFoundError(f"{label}: expected the labels of {image}, found no such file ({counts})")

    def _resize(self, x: Tensor) -> Tensor:
        """Bytes (3, H, W) or labels (H, W) to `size`; bilinear without smoothing, as in the published recipes."""
        size = fitted((x.shape[-2], x.shape[-1]), self.size) if self.size else x.shape[-2:]
        if x.shape[-2:] == size:
            return x
        if x.ndim == 2:
            return F.interpolate(x[None, None], size, mode="nearest-exact")[0, 0]
        # bytes alone would be rounded twice, between rows and columns
        return F.interpolate(x[None].float(), size, mode="bilinear")[0].round_().byte()

    def __len__(self) -> int:
        return len(self.samples)


def fitted(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) of the proportions of `size` that fits the frame, which is turned for tall images."""
    scale = min(max(frame) / max(size), min(frame) / min(size))
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def open_domain(spec: str, split: str = "train", size: tuple[int, int] | None = None) -> Domain:
    """The domain that LAYOUT:PATH names.

    Args:
        spec: the layout, one of `LAYOUTS`, and the folder.
        split: "train" or "val"; GTA5 and SYNTHIA have one split for both.
        size: see `Domain`.

    Raises:
        ValueError: no such layout.
        FileNotFoundError: the folder is not laid out so.
    """
    layout, colon, path = spec.partition(":")
    if not colon or layout not in LAYOUTS:
        raise ValueError(f"expected LAYOUT:PATH with LAYOUT one of {', '.join(LAYOUTS)}, got {spec!r}")
    return Domain(spec, *LAYOUTS[layout](Path(path).expanduser(), split), size)


def check_classes(source: Domain, target: Domain) -> None:
    """Raises ValueError where the two domains have other classes or order them otherwise."""
    ours, theirs = source.classes.names, target.classes.names
    if ours != theirs:
        raise ValueError(f"expected one list of classes, got {ours} in {source.spec} and {theirs} in {target.spec}")


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
        crop: (rows, cols) of the random crops. Smaller images are filled up at the right and at the bottom: with the
            mean colour, ignored labels, and no trust.
        batch_size: samples of each domain in this process.
        first_sample: number of this process's first sample within the whole batch.
        margins: (top, bottom) or (top, bottom, left, right) pixels of target crops whose pseudo-labels are not trusted.
        margins_of_image: the margins are those of the whole, resized target image and are cropped with it (HRDA).
        rare: draws source images by the classes that they show (DAFormer); None draws them evenly.
        min_crop_ratio: see `crop_with_class`; 0 takes the first crop.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        crop: tuple[int, int],
        batch_size: int,
        seed: int,
        first_sample: int = 0,
        margins: tuple[int, ...] = (0, 0),
        *,
        margins_of_image: bool = False,
        rare: RareClassSampler | None = None,
        min_crop_ratio: float = 0.5,
    ) -> None:
        if len(margins) not in (2, 4):
            raise ValueError(f"margins: expected (top, bottom) or (top, bottom, left, right), got {margins}")
        self.source, self.target, self.crop, self.seed = source, target, crop, seed
        self.samples = range(first_sample, first_sample + batch_size)
        self.margins, self.margins_of_image = margins, margins_of_image
        self.rare, self.min_crop_ratio = rare, min_crop_ratio

    def __getitem__(self, step: int) -> Batch:
        source_images, labels = zip(*(self._draw_source(generator(self.seed, "source", step, i)) for i in self.samples))
        target_images, trust = zip(*(self._draw_target(generator(self.seed, "target", step, i)) for i in self.samples))
        return Batch(
            normalise(torch.stack(source_images)),
            torch.stack(labels).long(),
            normalise(torch.stack(target_images)),
            torch.stack(trust).float(),
        )

    def _draw_source(self, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        """Image (3, rows, cols) in [0, 1] and its labels (rows, cols)."""
        if self.rare is None:
            index = int(torch.randint(len(self.source), (), generator=gen))
        else:
            wanted, index = self.rare.draw(gen)
        image, labels = self.source.labelled(index)
        draw_crop = partial(random_crop, image, labels, self.crop, gen)
        if self.rare is None or self.min_crop_ratio == 0:
            image, labels = draw_crop()
        else:
            image, labels = crop_with_class(draw_crop, wanted, self.min_crop_ratio, self.rare.min_pixels)
        image, labels = random_flip(image, labels, gen)
        return pad(image.float() / 255, labels, self.crop, IGNORE)

    def _draw_target(self, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        """Image (3, rows, cols) in [0, 1] and where it is trusted (rows, cols)."""
        image = self.target.pixels(int(torch.randint(len(self.target), (), generator=gen)))
        trusted = torch.ones(image.shape[1:], dtype=torch.uint8)
        if self.margins_of_image:
            trusted = without_margins(trusted, *self.margins)
        image, trusted = random_crop(image, trusted, self.crop, gen, max_share=1)
        image, trusted = random_flip(image, trusted, gen)
        image, trusted = pad(image.float() / 255, trusted, self.crop, 0)
        return image, trusted if self.margins_of_image else without_margins(trusted, *self.margins)


def without_margins(trusted: Tensor, top: int, bottom: int, left: int = 0, right: int = 0) -> Tensor:
    """trusted (H, W) with so many rows and columns at each edge at zero."""
    return zero_margins(zero_margins(trusted, top, bottom).mT, left, right).mT


def batches(data: Batches, start: int, stop: int, workers: int) -> Iterator[Batch]:
    """The batches of steps start, ..., stop - 1."""
    steps = range(start, stop)
    yield from DataLoader(data, batch_size=None, sampler=steps, num_workers=workers, worker_init_fn=leave_signals)


def leave_signals(worker: int) -> None:
    """Ctrl-C and SIGTERM reach a run's whole process group: workers go on, the training process says when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


__all__ = ["IGNORE", "Batch", "Batches", "Domain", "Sample", "batches", "check_classes", "open_domain", "open_image"]
