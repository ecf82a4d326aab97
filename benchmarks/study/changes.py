"""What arms change that no setting does: what fills the masked cells, what the loss counts, the step, the network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from trainers import Batch, Draws, Models, Segmentor, Settings, StepFunction, mix, pseudo_label

from mrm_loss import MRM
from mrm_loss.layers import Block, sincos_position
from mrm_loss.rebuilder import Rebuilder

# --- what fills the masked cells


def blank_tokens(rebuilder: Rebuilder, last: Tensor, mask: Tensor) -> Tensor:
    """In place of `rebuild_tokens`: the normalised mask token in every cell, whatever is visible."""
    token = rebuilder.norm(rebuilder.mask_token)
    return token[:, None, None].expand(len(last), -1, *rebuilder.grid_size)


def mask_only(mrm: MRM) -> None:
    """Each projector puts what it learned to put, the same in every masked cell; masks and projectors are MRM's."""
    mrm.rebuilder.rebuild_tokens = partial(blank_tokens, mrm.rebuilder)  # type: ignore[method-assign]


def local(mrm: MRM) -> None:
    """No transformer: a masked cell knows its position and, through the projector's transposed convolutions, its
    direct neighbours."""
    mrm.rebuilder.blocks = nn.ModuleList()


# --- what the loss counts


def masked_cells_alone(mrm: MRM) -> None:
    """The loss counts masked pixels only, still divided by the number of all."""
    whole = mrm.forward

    def forward(feats: list[Tensor], decoder_fn: object, labels: Tensor, weights: Tensor, *, mask: Tensor) -> Tensor:
        masked = F.interpolate(mask.float(), labels.shape[-2:], mode="nearest")[:, 0]
        return whole(feats, decoder_fn, labels, weights * masked, mask=mask)

    mrm.forward = forward  # type: ignore[method-assign, assignment]


def decoder_alone(mrm: MRM) -> None:
    """MRM's loss trains Rebuilder and decoder, not the encoder."""
    whole = mrm.forward

    def forward(feats: list[Tensor], *args: Any, **kwargs: Any) -> Tensor:
        mrm._warned_detached = True  # it is meant
        return whole([level.detach() for level in feats], *args, **kwargs)

    mrm.forward = forward  # type: ignore[method-assign]


# --- the step


class Unmixed(Draws):
    """ClassMix pastes nothing: the mixed image is the augmented target image."""

    def pasted(self, labels: Tensor, per_image: bool = True) -> Tensor:
        return torch.zeros_like(labels, dtype=torch.bool)


class Second(Draws):
    """The same kinds of choices drawn anew."""

    def generators(self, purpose: str, count: int) -> list[torch.Generator]:
        return super().generators(f"second {purpose}", count)


def without_mixing(step_function: StepFunction) -> StepFunction:
    """Plain self-training: source loss, and the pseudo-labels' loss on augmented target images."""

    def step(number: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
        return step_function(number, batch, models, cfg, Unmixed(cfg, draws.step))

    return step


def mixed_twice(step_function: StepFunction) -> StepFunction:
    """A second mixed pass, with classes and colours of its own."""

    def step(number: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
        losses = step_function(number, batch, models, cfg, draws)
        if number < 0:
            return losses
        again = Second(cfg, draws.step)
        labels, weights = pseudo_label(
            models.passes.predict(models.teacher.predict, batch.target_images), cfg.threshold
        )
        pasted = again.pasted(batch.source_labels)
        images = again.colours("mixed", mix(pasted, batch.source_images, batch.target_images))
        trust = mix(pasted, torch.ones_like(weights), weights * batch.target_trusted)
        mixed_labels = mix(pasted, batch.source_labels, labels)
        return losses | models.passes.backward(models.student, "mixed again", images, mixed_labels, trust)

    return step


def every(period: int) -> Callable[[StepFunction], StepFunction]:
    """MRM's pass in one of so many steps; its weight is the settings' business."""

    def wrap(step_function: StepFunction) -> StepFunction:
        def step(number: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
            student, mrm = models.student, models.student.mrm
            student.mrm = None if number % period else mrm
            try:
                return step_function(number, batch, models, cfg, draws)
            finally:
                student.mrm = mrm

        return step

    return wrap


# --- the network


class GlobalView(nn.Module):
    """Two transformer blocks on the cells of the encoder's coarse level, so that each sees the whole image."""

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(channels, 4, 2 * channels), Block(channels, 4, 2 * channels))
        self.norm = nn.LayerNorm(channels)
        nn.init.zeros_(self.norm.weight)  # starts as the encoder without it

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[-2:]
        tokens = rearrange(x, "b c h w -> b (h w) c")
        tokens = tokens + self.norm(self.blocks(tokens + sincos_position((rows, cols), x.shape[1]).to(x)))
        return rearrange(tokens, "b (h w) c -> b c h w", h=rows)


def global_encoder(network: Segmentor) -> None:
    network.encoder.stage = nn.Sequential(network.encoder.stage, GlobalView())


def context_free_decoder(network: Segmentor) -> None:
    """The decoder keeps no dilated convolution: it sees a cell and, through resizing, its direct neighbours."""
    network.decoder.context = nn.ModuleList()
