"""Crops, flips and padding of samples, and the statistics that images are normalised with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.devices import constant
from ..runtime.rng import uniform
from .labels import IGNORE

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor) -> Tensor:
    """RGB in [0, 1] -> ImageNet statistics; (..., 3, H, W)."""
    return (images - per_channel(MEAN, images)) / per_channel(STD, images)


def denormalise(images: Tensor) -> Tensor:
    """The inverse of `normalise`."""
    return images * per_channel(STD, images) + per_channel(MEAN, images)


def per_channel(values: tuple[float, ...], images: Tensor) -> Tensor:
    """(3, 1, 1), with the images' dtype and on their device."""
    return constant(values, images).view(3, 1, 1)


def random_crop(
    image: Tensor, labels: Tensor, size: tuple[int, int], gen: torch.Generator, max_share: float = 0.75
) -> tuple[Tensor, Tensor]:
    """Crops image (3, H, W) and labels (H, W), uint8, at one random place, at most `size`.

    Drawn again, up to ten times, while one class fills `max_share` of the crop's labelled pixels or more (DAFormer's
    configuration for the source); 1 takes the first crop. The crops are views.
    """
    height, width = labels.shape
    rows, cols = min(size[0], height), min(size[1], width)
    if (rows, cols) == (height, width):
        return image, labels
    for _ in range(11):
        top = int(torch.randint(height - rows + 1, (), generator=gen))
        left = int(torch.randint(width - cols + 1, (), generator=gen))
        crop = labels[top : top + rows, left : left + cols]
        if max_share >= 1:
            break
        counts = torch.bincount(crop.flatten(), minlength=256)[:IGNORE]
        if (counts > 0).sum() > 1 and counts.max() / counts.sum() < max_share:
            break
    return image[:, top : top + rows, left : left + cols], crop


def random_flip(image: Tensor, labels: Tensor, gen: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirrors left and right with probability 0.5."""
    if uniform(gen) < 0.5:
        return image.flip(-1), labels.flip(-1)
    return image, labels


def pad(image: Tensor, labels: Tensor, size: tuple[int, int], fill: int) -> tuple[Tensor, Tensor]:
    """Fills up image (3, h, w), in [0, 1], and labels (h, w) to `size` at the right and at the bottom.

    The image with the mean colour, which is zero once normalised; the labels with `fill`.
    """
    rows, cols = size[0] - labels.shape[0], size[1] - labels.shape[1]
    if rows <= 0 and cols <= 0:
        return image, labels
    mean = per_channel(MEAN, image)
    return F.pad(image - mean, (0, cols, 0, rows)) + mean, F.pad(labels, (0, cols, 0, rows), value=fill)
