"""The paper's other objectives of the rebuilt features: regression of features or pixels in place of classification."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from einops import rearrange
from steps import Wrap, within
from torch import Tensor, nn
from trainers import Batch, Models, Settings

from mrm_loss import MRM, frozen_norm_stats

# what a level's rebuilt features are compared with: (rebuilt, expected) of each level, (B, C, H, W)
Pairs = Callable[[Models, Batch, list[Tensor], list[Tensor]], list[tuple[Tensor, Tensor]]]


def student_features(
    models: Models, batch: Batch, feats: list[Tensor], rebuilt: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """The student's own features, where they were masked."""
    return [(made, normalised(level.detach())) for made, level in zip(rebuilt, feats)]


def teacher_features(
    models: Models, batch: Batch, feats: list[Tensor], rebuilt: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """The teacher's features of the image before augmentation."""
    with torch.no_grad(), frozen_norm_stats(models.teacher):
        return [(made, normalised(level)) for made, level in zip(rebuilt, models.teacher.encode(batch.target_images))]


def pixels(models: Models, batch: Batch, feats: list[Tensor], rebuilt: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The image itself, by `pixel_head` from the coarse level."""
    made = models.student.mrm.pixel_head(rebuilt[-1])
    return [(made, rearrange(batch.target_images, "b c (h p) (w q) -> b (c p q) h w", p=8, q=8))]


def pixel_head(mrm: MRM) -> None:
    """A linear layer from the coarse level's cell to its 8 x 8 pixels; trained with the Rebuilder."""
    mrm.pixel_head = nn.Conv2d(128, 3 * 8 * 8, 1)


def normalised(level: Tensor) -> Tensor:
    """Every position's channels to mean 0 and variance 1, as the Rebuilder's last layer has them."""
    return F.layer_norm(level.movedim(1, -1), level.shape[1:2]).movedim(-1, 1)


def regression(pairs: Pairs) -> Wrap:
    """MRM's loss is the mean squared error at masked cells; decoder and pseudo-labels play no part."""

    def context(number: int, batch: Batch, models: Models, cfg: Settings) -> AbstractContextManager[Any]:
        mrm = models.student.mrm

        def forward(feats: list[Tensor], *_: Any, mask: Tensor) -> Tensor:
            rebuilt, mask = mrm.rebuild(feats, mask)
            losses = [masked_error(*pair, mask) for pair in pairs(models, batch, feats, rebuilt)]
            return cfg.mrm_weight * torch.stack(losses).mean()

        return patch.object(mrm, "forward", forward)

    return within(context)


def masked_error(made: Tensor, expected: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error (a scalar) of (B, C, H, W) at masked cells (B, 1, rows, cols)."""
    hidden = F.interpolate(mask.float(), made.shape[-2:], mode="nearest")
    error = (made - expected).square().mean(1, keepdim=True)
    return (error * hidden).sum() / hidden.sum().clamp(min=1)
