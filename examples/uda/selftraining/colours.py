"""Colour augmentation of batches: the strong one of DACS (section 3.3), and the weak one of VFM-UDA."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.transforms import denormalise, normalise
from ..runtime.rng import uniform

GREY = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
WEAK = (32 / 255, 0.5, 0.5, 18 / 360)  # VFM-UDA's brightness, contrast, saturation, hue
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def strong_augment(images: Tensor, generators: list[torch.Generator], jitter: float = 0.2) -> Tensor:
    """Colour jitter with probability 0.8, Gaussian blur with probability 0.5, per image (DACS, section 3.3).

    Args:
        images: (B, 3, H, W), normalised.
        generators: one CPU generator per image.
        jitter: strength of brightness, contrast, saturation and hue.
    """
    out = []
    for image, gen in zip(denormalise(images), generators):
        if uniform(gen) < 0.8:
            image = colour_jitter(image, (jitter,) * 4, gen)
        if uniform(gen) < 0.5:
            image = gaussian_blur(image, uniform(gen, 0.15, 1.15))
        out.append(image)
    return normalise(torch.stack(out))


def weak_augment(images: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Colour jitter with probability 0.9 per image (VFM-UDA).

    Args:
        images: (B, 3, H, W), normalised.
        generators: one CPU generator per image.
    """
    pairs = zip(denormalise(images), generators)
    return normalise(torch.stack([colour_jitter(x, WEAK, gen) if uniform(gen) < 0.9 else x for x, gen in pairs]))


def colour_jitter(image: Tensor, strengths: tuple[float, ...], gen: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation times U(1 - s, 1 + s), hue turned by U(-s, s) of a circle, in random order.

    image: (3, H, W) in [0, 1]; strengths: s of brightness, contrast, saturation and hue.
    """
    for which in torch.randperm(4, generator=gen).tolist():
        strength = strengths[which]
        if which == 3:
            image = turn_hue(image, uniform(gen, -strength, strength))
            continue
        factor = uniform(gen, 1 - strength, 1 + strength)
        grey = (image * GREY.to(image)).sum(0, keepdim=True)
        anchor = [torch.zeros_like(grey), grey.mean(), grey][which]  # brightness, contrast, saturation
        image = (anchor + (image - anchor) * factor).clamp(0, 1)
    return image


def turn_hue(image: Tensor, turn: float) -> Tensor:
    """Turns the chroma plane of YIQ by `turn` of a circle; luma stays. image: (3, H, W) in [0, 1]."""
    angle = 2 * math.pi * turn
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    matrix = (torch.linalg.inv(YIQ) @ rotation @ YIQ).to(image)
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
