"""Colour augmentation of batches: the strong one of DACS (section 3.3), and the weak one of VFM-UDA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.transforms import denormalise, normalise
from ..runtime.devices import constant, to_device
from ..runtime.rng import uniform

GREY = (0.299, 0.587, 0.114)
YIQ = torch.tensor([GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
HUE = 3  # brightness, contrast and saturation come before it
WEAK = (32 / 255, 0.5, 0.5, 18 / 360)  # VFM-UDA's strengths of them


class Colours(NamedTuple):
    """The choices for one image.

    jitter: what is changed, in this order: (0, 1 or 2, factor of brightness, contrast or saturation), or (HUE, turn).
    sigma: of the blur in pixels; None: no blur.
    """

    jitter: list[tuple[int, float]]
    sigma: float | None

    @property
    def turn(self) -> float:
        """Of the hue, as a share of a circle."""
        return dict(self.jitter).get(HUE, 0.0)


def strong_augment(images: Tensor, generators: list[torch.Generator], jitter: float = 0.2) -> Tensor:
    """Colour jitter with probability 0.8, Gaussian blur with probability 0.5, per image (DACS, section 3.3).

    Args:
        images: (B, 3, H, W), normalised.
        generators: one CPU generator per image.
        jitter: strength of brightness, contrast, saturation and hue.
    """
    return recoloured(images, [draw_colours(gen, jitter) for gen in generators])


def weak_augment(images: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Colour jitter with probability 0.9 per image (VFM-UDA).

    Args:
        images: (B, 3, H, W), normalised.
        generators: one CPU generator per image.
    """
    chosen = [draw_jitter(gen, WEAK) if uniform(gen) < 0.9 else [] for gen in generators]
    return recoloured(images, [Colours(jitter, None) for jitter in chosen])


def recoloured(images: Tensor, chosen: list[Colours]) -> Tensor:
    """Normalised images (B, 3, H, W), changed as was chosen for each."""
    matrices = to_device(torch.stack([hue_matrix(colours.turn) for colours in chosen]), images.device, images.dtype)
    out = []
    for image, colours, matrix in zip(denormalise(images), chosen, matrices):
        image = colour_jitter(image, colours.jitter, matrix)
        out.append(image if colours.sigma is None else gaussian_blur(image, colours.sigma))
    return normalise(torch.stack(out))


def draw_colours(gen: torch.Generator, strength: float) -> Colours:
    """The strong ones: jitter with probability 0.8, blur with 0.5."""
    jitter = draw_jitter(gen, (strength,) * 4) if uniform(gen) < 0.8 else []
    return Colours(jitter, uniform(gen, 0.15, 1.15) if uniform(gen) < 0.5 else None)


def draw_jitter(gen: torch.Generator, strengths: Sequence[float]) -> list[tuple[int, float]]:
    """Brightness, contrast and saturation times U(1 - s, 1 + s), hue turned by U(-s, s) of a circle, in random order.

    Args:
        strengths: s of brightness, contrast, saturation and hue.
    """
    jitter = []
    for which in torch.randperm(4, generator=gen).tolist():
        centre, strength = 0 if which == HUE else 1, strengths[which]
        jitter.append((which, uniform(gen, centre - strength, centre + strength)))
    return jitter


def colour_jitter(image: Tensor, jitter: list[tuple[int, float]], matrix: Tensor) -> Tensor:
    """Changes an image (3, H, W) in [0, 1] as `Colours.jitter` says; `matrix` is the `hue_matrix` of its turn."""
    for which, factor in jitter:
        if which == HUE:
            image = turn_hue(image, matrix)
            continue
        grey = (image * constant(GREY, image).view(3, 1, 1)).sum(0, keepdim=True)
        anchor = [torch.zeros_like(grey), grey.mean(), grey][which]  # brightness, contrast, saturation
        image = (anchor + (image - anchor) * factor).clamp(0, 1)
    return image


def hue_matrix(turn: float) -> Tensor:
    """(3, 3), RGB to RGB: turns the chroma plane of YIQ by `turn` of a circle; luma stays."""
    angle = 2 * math.pi * turn
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix: Tensor = torch.linalg.inv(YIQ) @ rotation @ YIQ
    return matrix


def turn_hue(image: Tensor, matrix: Tensor) -> Tensor:
    """`hue_matrix` of every pixel of an image (3, H, W) in [0, 1]."""
    return torch.einsum("oc,chw->ohw", matrix, image).clamp(0, 1)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blurs (3, H, W) with a Gaussian of `sigma` pixels, edges replicated as far as they reach."""
    radius = min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)  # (3, 1, 1, 2r + 1)
    image = F.pad(image[None], (radius,) * 4, mode="replicate")
    image = F.conv2d(image, kernel, groups=3)
    return F.conv2d(image, kernel.transpose(2, 3), groups=3)[0]
