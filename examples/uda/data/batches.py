"""The batches of a training step, drawn from a source and a target domain."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..runtime.devices import to_device
from ..runtime.rng import generator, uniform
from ..runtime.workers import (
    AHEAD,
    check_shared_memory,
    end_workers,
    free_shared_memory,
    into_shared_memory,
    naming_killed,
    start_worker,
    starting_workers,
)
from .domain import Domain
from .labels import IGNORE
from .rare_class import RareClassSampler
from .transforms import normalise, pad, random_crop, random_flip

REDRAWS = 10  # of a crop, at most, until it shows the class that its image was drawn for


@dataclass(frozen=True)
class Batch:
    """What a training step sees: images (B, 3, H, W), normalised; labels (B, H, W), int64."""

    source_images: Tensor
    source_labels: Tensor
    target_images: Tensor
    target_trusted: Tensor  # (B, H, W) of 0 and 1: where pseudo-labels are trusted at all

    def to(self, device: torch.device) -> Batch:
        return Batch(*(to_device(t, device) for t in vars(self).values()))

    def pin_memory(self) -> Batch:
        """In memory that a GPU copies from while it computes; the loader calls it."""
        return Batch(*(t.pin_memory() for t in vars(self).values()))

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in vars(self).values())


class Batches(Dataset[Batch]):
    """The batch of step t: sample i depends on (seed, t, i) alone.

    Args:
        source, target: where samples are drawn from, with replacement. Target labels are not read.
        crop: (rows, cols) of the random crops. Smaller images are filled up at the right and at the bottom: with the
            mean colour, ignored labels, and no trust.
        batch_size: samples of each domain in this process.
        first_sample: number of this process's first sample within the whole batch.
        margins: (top, bottom, left, right) pixels of target crops whose pseudo-labels are not trusted.
        margins_of_image: the margins are those of the whole, resized target image and are cropped with it (HRDA).
        rare: draws source images by the classes that they show (DAFormer); None draws them evenly.
        min_crop_ratio: a crop is drawn anew, `REDRAWS` times at most, until it shows more than
            min_pixels * min_crop_ratio pixels of the class that its image was drawn for; 0.5 in DAFormer, 2.0 in HRDA,
            whose crops are of larger images; 0 takes the first crop.
        scale_jitter: images are resized by a factor from 1 - this to 1 + this before they are cropped, and margins of
            the image with them.
    """

    def __init__(
        self,
        source: Domain,
        target: Domain,
        crop: tuple[int, int],
        batch_size: int,
        seed: int,
        first_sample: int = 0,
        margins: tuple[int, int, int, int] = (0, 0, 0, 0),
        *,
        margins_of_image: bool = False,
        rare: RareClassSampler | None = None,
        min_crop_ratio: float = 0.5,
        scale_jitter: float = 0.0,
    ) -> None:
        self.source, self.target, self.crop, self.seed = source, target, crop, seed
        self.samples = range(first_sample, first_sample + batch_size)
        self.margins, self.margins_of_image = margins, margins_of_image
        self.rare, self.min_crop_ratio = rare, min_crop_ratio
        self.scale_jitter = scale_jitter

    def __getitem__(self, step: int) -> Batch:
        source_images, labels = zip(*(self._draw_source(generator(self.seed, "source", step, i)) for i in self.samples))
        target_images, trust = zip(*(self._draw_target(generator(self.seed, "target", step, i)) for i in self.samples))
        return Batch(
            normalise(torch.stack(source_images)),
            torch.stack(labels).long(),
            normalise(torch.stack(target_images)),
            torch.stack(trust).float(),
        )

    def files(self, step: int) -> list[str]:
        """The image files of the batch of a step, the source's first."""
        source = [self._pick_source(generator(self.seed, "source", step, i))[0] for i in self.samples]
        target = [self._pick_target(generator(self.seed, "target", step, i)) for i in self.samples]
        images = [self.source.samples[k].image for k in source] + [self.target.samples[k].image for k in target]
        return [str(image) for image in images]

    def _pick_source(self, gen: torch.Generator) -> tuple[int, int]:
        """Index of a sample, and the class that it was picked for; -1 without rare class sampling."""
        if self.rare is None:
            return int(torch.randint(len(self.source), (), generator=gen)), -1
        wanted, index = self.rare.draw(gen)
        return index, wanted

    def _pick_target(self, gen: torch.Generator) -> int:
        return int(torch.randint(len(self.target), (), generator=gen))

    def _draw_source(self, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        """Image (3, rows, cols) in [0, 1] and its labels (rows, cols)."""
        index, wanted = self._pick_source(gen)
        image, labels = self._scaled(self.source, gen).labelled(index)
        crop, crop_labels = random_crop(image, labels, self.crop, gen)
        if self.rare is not None and self.min_crop_ratio > 0:
            for _ in range(REDRAWS):
                if int((crop_labels == wanted).sum()) > self.rare.min_pixels * self.min_crop_ratio:
                    break
                crop, crop_labels = random_crop(image, labels, self.crop, gen)
        crop, crop_labels = random_flip(crop, crop_labels, gen)
        return pad(crop.float() / 255, crop_labels, self.crop, IGNORE)

    def _draw_target(self, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        """Image (3, rows, cols) in [0, 1] and where it is trusted (rows, cols)."""
        index = self._pick_target(gen)
        target = self._scaled(self.target, gen)
        image = target.pixels(index)
        trusted = torch.ones(image.shape[1:], dtype=torch.uint8)
        if self.margins_of_image:
            trusted = without_margins(trusted, *(round(margin * target.scale) for margin in self.margins))
        image, trusted = random_crop(image, trusted, self.crop, gen, max_share=1)
        image, trusted = random_flip(image, trusted, gen)
        image, trusted = pad(image.float() / 255, trusted, self.crop, 0)
        return image, trusted if self.margins_of_image else without_margins(trusted, *self.margins)

    def _scaled(self, domain: Domain, gen: torch.Generator) -> Domain:
        """The domain with its images at a random scale."""
        if self.scale_jitter == 0:
            return domain
        return replace(domain, scale=uniform(gen, 1 - self.scale_jitter, 1 + self.scale_jitter))


def without_margins(trusted: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """A copy of trusted (..., H, W) with so many rows and columns at each edge at zero."""
    rows, cols = (max(edge, 0) for edge in (trusted.shape[-2] - bottom, trusted.shape[-1] - right))
    kept = torch.zeros_like(trusted)
    kept[..., top:rows, left:cols] = trusted[..., top:rows, left:cols]
    return kept


def hand_over(batch: Any) -> Any:
    """The batch in shared memory; called in a worker. Raises OSError where there is too little of it."""
    into_shared_memory(vars(batch).values())
    return batch


def batches(data: Batches, start: int, stop: int, workers: int, pin: bool = False) -> Generator[Batch, None, None]:
    """The batches of steps start, ..., stop - 1.

    Args:
        workers: processes that load two batches each ahead, for as long as the steps last; 0: none.
        pin: whether batches come in pinned memory (see `Batch.pin_memory`).

    The workers end with the iterator, so close it (`contextlib.closing`), and with this process.

    Raises:
        OSError: batches do not fit into shared memory, through which workers hand them over.
        RuntimeError: a worker was killed.
    """
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        worker_init_fn=start_worker,
        collate_fn=hand_over if workers else None,
        pin_memory=pin,
        prefetch_factor=AHEAD if workers else None,
    )
    free = free_shared_memory()
    check_shared_memory(free, workers)
    with starting_workers():
        iterator = iter(loader)
    try:
        with naming_killed(iterator):
            for batch in iterator:
                check_shared_memory(free, workers, batch.nbytes)
                yield batch
    finally:
        end_workers(iterator)
