"""What arms change of MRM's pass: each function is given the opened run, whose steps are the trainers'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trainers import Run

from mrm_loss.rebuilder import fuse

Levels = list[Tensor]  # (B, C_l, h_l, w_l) each, fine to coarse


def no_transformer(run: Run) -> None:
    """A cell is rebuilt from its own token, its position and, through the projectors, its direct neighbours."""
    run.models.mrm.rebuilder.blocks = nn.ModuleList()


def zero(run: Run) -> None:
    """Masked cells are zero at every level."""
    decode_instead(run, lambda feats, mask: [fuse(level, torch.zeros_like(level), mask) for level in feats])


def nothing(run: Run) -> None:
    """Nothing is masked: the pass alone."""
    # copies: the library takes the same tensors for levels that pass through, and warns that nothing is trained
    decode_instead(run, lambda feats, mask: [level.clone() for level in feats])


def decode_instead(run: Run, fill: Callable[[Levels, Tensor], Levels]) -> None:
    """The decoder is given `fill(feats, mask)` in place of what the Rebuilder makes; mask (B, 1, rows, cols)."""

    def rebuild(feats: Levels, mask: Tensor, _: Any = None) -> tuple[Levels, Tensor]:
        return fill(feats, mask), mask

    run.models.mrm.rebuild = rebuild


def visible_alone(run: Run) -> None:
    """Pixels in masked cells do not count; the loss is divided by the number of all."""
    mrm = run.models.mrm
    forward = mrm.forward

    def weighed(feats: Levels, decoder: nn.Module, labels: Tensor, weights: Tensor, *, mask: Tensor) -> Tensor:
        hidden = F.interpolate(mask.float(), labels.shape[-2:], mode="nearest")[:, 0].bool()  # (B, H, W)
        return forward(feats, decoder, labels, weights * ~hidden, mask=mask)

    mrm.forward = weighed
