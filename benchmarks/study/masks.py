"""Masks that the paper leaves open: cells of rare classes or of an unsure teacher first, and a ratio that rises."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from einops import repeat
from steps import Wrap, with_draws
from torch import Tensor
from trainers import Batch, Draws, Models, Settings, StepFunction


def rarity(logits: Tensor) -> Tensor:
    """One over the share that each pixel's pseudo-label has of the batch's: (B, K, H, W) to (B, H, W)."""
    labels = logits.argmax(1)
    counts = torch.bincount(labels.flatten(), minlength=logits.shape[1])
    return labels.numel() / counts[labels]


def doubt(logits: Tensor) -> Tensor:
    """Entropy in nats of the teacher's class probabilities (B, K, H, W) at each pixel: (B, H, W)."""
    log_probabilities = logits.log_softmax(1)
    return -(log_probabilities.exp() * log_probabilities).sum(1)


def choose(mask: Tensor, preference: Tensor, draws: Tensor, block_size: int) -> Tensor:
    """As many blocks as `mask` hides in each image, drawn without replacement with chances as the preference's.

    Args:
        mask: bool (B, 1, rows, cols).
        preference: (B, 1, r, c) > 0, of each block.
        draws: (B, 1, r, c), uniform in [0, 1).
        block_size: side of a block in cells.

    Returns:
        bool (B, 1, rows, cols).
    """
    rows, cols = mask.shape[-2:]
    many = mask[..., ::block_size, ::block_size].flatten(1).sum(1, keepdim=True)
    # the highest draws ** (1 / preference) are such a sample (Efraimidis and Spirakis, 2006)
    keys = (draws.clamp(min=1e-30).log() / preference).flatten(1)
    chosen = (keys.argsort(1, descending=True).argsort(1) < many).view_as(preference)
    return repeat(chosen, "b 1 r c -> b 1 (r i) (c j)", i=block_size, j=block_size)[..., :rows, :cols]


class Preferring(Draws):
    """MRM's masks hide as many blocks as they would, rather those with a high preference."""

    preference: Tensor  # (B, H, W) > 0, of the target images' pixels
    power: float  # on a block's mean preference

    def masked(self, purpose: str, images: Tensor) -> Tensor:
        mask, block = super().masked(purpose, images), self.cfg.mrm_block_size
        size = mask[..., ::block, ::block].shape[1:]
        draws = torch.stack([torch.rand(size, generator=g) for g in self.generators("preferred", len(mask))])
        preference = F.interpolate(self.preference[:, None], size[1:], mode="area").clamp(min=1e-6) ** self.power
        return choose(mask, preference, draws.to(mask.device), block)


def preferring(preference_of: Callable[[Tensor], Tensor], power: float) -> Wrap:
    """Masks that prefer cells by what the teacher's logits say of them."""

    def wrap(step_function: StepFunction) -> StepFunction:
        def step(number: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
            own, predict = Preferring(cfg, draws.step, draws.classes), models.passes.predict
            own.power = power

            def watched(*inputs: object) -> Tensor:
                logits: Tensor = predict(*inputs)
                own.preference = preference_of(logits)
                return logits

            with patch.object(models.passes, "predict", watched):
                return step_function(number, batch, models, cfg, own)

        return step

    return wrap


def rising(first: float, last: float) -> Wrap:
    """The masked share goes in a straight line from the first step of the method to its last."""

    def other(number: int, draws: Draws) -> Draws:
        done = max(number, 0) / max(draws.cfg.iterations - 1, 1)
        changed = dataclasses.replace(draws.cfg, mrm_mask_ratio=first + (last - first) * done)
        return Draws(changed, draws.step, draws.classes)

    return with_draws(other)
