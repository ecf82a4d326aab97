"""What arms change of a trainer's step, and what they train before its first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from trainers import (
    Batch,
    Draws,
    Models,
    Run,
    Settings,
    StepFunction,
    batches,
    batches_of,
    generator,
    mix,
    pseudo_label,
)

Wrap = Callable[[StepFunction], StepFunction]


class Unmixed(Draws):
    """ClassMix pastes nothing: the mixed image is the augmented target image."""

    def pasted(self, labels: Tensor, per_image: bool = True) -> Tensor:
        return torch.zeros_like(labels, dtype=torch.bool)


class Second(Draws):
    """The same kinds of choices drawn anew."""

    def generators(self, purpose: str, count: int) -> list[torch.Generator]:
        return super().generators(f"second {purpose}", count)


def with_draws(other: Callable[[int, Draws], Draws]) -> Wrap:
    """The step as it is, with other random choices: its number and draws to those that it gets."""

    def wrap(step_function: StepFunction) -> StepFunction:
        def step(number: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
            return step_function(number, batch, models, cfg, other(number, draws))

        return step

    return wrap


# plain self-training: source loss, and the pseudo-labels' loss on augmented target images
without_mixing = with_draws(lambda number, draws: Unmixed(draws.cfg, draws.step, draws.classes))


def mixed_twice(step_function: StepFunction) -> StepFunction:
    """A second mixed pass, with classes and colours of its own."""

    def step(number: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
        losses = step_function(number, batch, models, cfg, draws)
        if number < 0:
            return losses
        again = Second(cfg, draws.step, draws.classes)
        labels, weights = pseudo_label(
            models.passes.predict(models.teacher.predict, batch.target_images), cfg.threshold
        )
        pasted = again.pasted(batch.source_labels)
        images = again.colours("mixed", mix(pasted, batch.source_images, batch.target_images))
        trust = mix(pasted, torch.ones_like(weights), weights * batch.target_trusted)
        mixed_labels = mix(pasted, batch.source_labels, labels)
        return losses | models.passes.backward(models.student, "mixed again", images, mixed_labels, trust)

    return step


def within(context: Callable[[int, Batch, Models, Settings], AbstractContextManager[Any]]) -> Wrap:
    """The step as it is, within a context that is made for it."""

    def wrap(step_function: StepFunction) -> StepFunction:
        def step(number: int, batch: Batch, models: Models, cfg: Settings, draws: Draws) -> dict[str, Tensor]:
            with context(number, batch, models, cfg):
                return step_function(number, batch, models, cfg, draws)

        return step

    return wrap


def every(period: int) -> Wrap:
    """MRM's pass in one of so many steps; its weight is the settings' business."""

    def context(number: int, batch: Batch, models: Models, cfg: Settings) -> AbstractContextManager[Any]:
        return patch.object(models.student, "mrm", None) if number % period else nullcontext()

    return within(context)


def on_part(cut: Callable[[Settings, int, Tensor], Tensor]) -> Wrap:
    """MRM's pass on a part of its images, labels and weights; masks as they are drawn, for as many images."""

    def context(number: int, batch: Batch, models: Models, cfg: Settings) -> AbstractContextManager[Any]:
        whole = models.passes.backward

        def backward(losses_of: Any, *inputs: Any, masked: Tensor | None = None, **options: Any) -> Any:
            if masked is not None:
                name, *tensors = inputs
                inputs = (name, *(cut(cfg, number, tensor) for tensor in tensors))
                options["masked"] = masked[: len(inputs[1])]
            return whole(losses_of, *inputs, **options)

        return patch.object(models.passes, "backward", backward)

    return within(context)


def half_batch(cfg: Settings, number: int, tensor: Tensor) -> Tensor:
    """The first half of a batch, whose order is drawn anew by the loader."""
    return tensor[: len(tensor) // 2]


def quarter_crop(cfg: Settings, number: int, tensor: Tensor) -> Tensor:
    """A window of half the rows and columns, its place drawn for the step and on the encoder's stride."""
    rows, cols = (size // 2 for size in cfg.crop)
    draws = generator(cfg.seed, "window", number)
    top, left = (8 * int(torch.randint(0, size // 8 + 1, (), generator=draws)) for size in (rows, cols))
    return tensor[..., top : top + rows, left : left + cols]


# --- before the first step


def pretrained_rebuilder(run: Run) -> None:
    """Trains the Rebuilder alone, on masked source features, their labels and the pre-trained network as it is, for as
    many steps as the network was."""
    network, mrm, cfg = run.models.student.network, run.models.student.mrm, run.settings
    optimizer = torch.optim.AdamW(mrm.parameters(), lr=cfg.mrm_lr, weight_decay=0.01)
    network.eval().requires_grad_(False)
    mrm._warned_detached = True  # it is meant
    for number, batch in enumerate(batches(batches_of(run), 0, cfg.pretrain_iterations, cfg.workers)):
        batch = batch.to(run.device)
        mask = Draws(cfg, number).masked("source before", batch.source_images)
        loss = mrm(network.encode(batch.source_images), network.decode, batch.source_labels, mask=mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    network.train().requires_grad_(True)


def frozen_rebuilder(run: Run) -> None:
    """The same, and its weights stay as they are afterwards."""
    pretrained_rebuilder(run)
    run.models.student.mrm.requires_grad_(False)
