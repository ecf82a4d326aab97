"""DACS's step with a pass beside it that can be MRM's, one of its controls, or something that may help more.

`dacs_step` is train_dacs_mrm.train_step written out for one process and one precision; a test holds the two together.
What an arm changes is in `Change`, in functions that take what the step knows by then (`Now`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from trainers import Batch, Draws, Models, Settings, balance, generator, mix, update_teacher

from mrm_loss import frozen_norm_stats, weighted_cross_entropy

Levels = list[Tensor]


@dataclass
class Now:
    """What a step knows when its own passes are done."""

    step: int
    models: Models
    cfg: Settings
    draws: Draws
    target: tuple[Tensor, Tensor, Tensor]  # images, pseudo-labels, weights: the batch's share of confident pixels
    mixed: tuple[Tensor, Tensor, Tensor]  # of DACS's mixed images, which are augmented
    probabilities: Tensor  # (B, K, H, W), the teacher's on the target images
    trusted: Tensor  # (B, H, W): 0 where pseudo-labels are not trusted at all, else 1 or, balanced, how rare they are

    @property
    def trust(self) -> float:
        return self.target[2].mean().item()

    @property
    def progress(self) -> float:
        return self.step / self.cfg.iterations


Inputs = Callable[[Now], tuple[Tensor, Tensor, Tensor]]
Fill = Callable[[Now, Levels, Tensor], Levels]


# --- what goes into the pass: images, labels, weights


def target(now: Now) -> tuple[Tensor, Tensor, Tensor]:
    """As published: the target images, all pixels with one weight."""
    images, labels, weights = now.target
    return (now.draws.colours("mrm", images) if now.cfg.mrm_augment else images), labels, weights


def each_pixel(now: Now) -> tuple[Tensor, Tensor, Tensor]:
    """The target images; pixels weigh 1 from the threshold on, else 0 (FixMatch, UniMatch)."""
    images, labels, _ = target(now)
    return images, labels, (now.probabilities.amax(1) >= now.cfg.threshold).float() * now.trusted


def mixed(now: Now) -> tuple[Tensor, Tensor, Tensor]:
    """DACS's mixed images, whose source pixels have true labels."""
    return now.mixed


# --- what stands in the masked cells


def cells(mask: Tensor, level: Tensor) -> Tensor:
    """The mask of the grid (B, 1, rows, cols) at a level's size, as the library resizes it."""
    return F.interpolate(mask.float(), level.shape[-2:], mode="nearest").bool()


def rebuilt(now: Now, feats: Levels, mask: Tensor) -> Levels:
    """What the Rebuilder, or the mask token where --mrm-mask-only is on, makes of it."""
    levels: Levels = now.models.mrm.rebuild(feats, mask)[0]
    return levels


def zero(now: Now, feats: Levels, mask: Tensor) -> Levels:
    return [torch.where(cells(mask, level), 0.0, level) for level in feats]


def nothing(now: Now, feats: Levels, mask: Tensor) -> Levels:
    """Nothing is masked: the pass alone."""
    return feats


def other_image(now: Now, feats: Levels, mask: Tensor) -> Levels:
    """The cells of the batch's next image, which take part as they are, without gradients."""
    return [torch.where(cells(mask, level), level.detach().roll(1, 0), level) for level in feats]


def channels(now: Now, feats: Levels, mask: Tensor) -> Levels:
    """Half of the channels of every image set to zero, whole ones, the others doubled (UniMatch)."""
    return [F.dropout2d(level, 0.5) for level in feats]


# --- the pass's weight over time


def constant(now: Now) -> float:
    return 1.0


def ramp(now: Now) -> float:
    """Rises in a straight line over the first half of self-training."""
    return min(1.0, 2 * now.progress)


def delayed(now: Now) -> float:
    """Nothing in the first half."""
    return float(now.progress >= 0.5)


def by_trust(now: Now) -> float:
    """The share of confident pixels once more, so that it counts squared."""
    return now.trust


@dataclass(frozen=True)
class Change:
    """The pass beside DACS's own; the defaults are MRM as published.

    twice: two complementary masks of one encoding, half the weight each.
    visible_alone: pixels in masked cells do not count; the loss is divided by the number of all.
    frozen: the pass leaves BatchNorm's running statistics as they are.
    """

    inputs: Inputs = target
    fill: Fill = rebuilt
    factor: Callable[[Now], float] = constant
    twice: bool = False
    visible_alone: bool = False
    frozen: bool = False

    def own_pass(self, now: Now) -> Tensor:
        """Encodes, fills, decodes, and goes back from the loss, which is returned."""
        if self.factor(now) == 0:
            return torch.zeros(())
        images, labels, weights = self.inputs(now)
        network, mask = now.models.network, now.draws.masked("mrm", labels)
        total: Any = 0.0
        with frozen_norm_stats(network) if self.frozen else nullcontext():
            feats = network.encoder(images)
            for hidden in (mask, ~mask) if self.twice else (mask,):
                logits = network.decoder(self.fill(now, feats, hidden))
                counted = weights * ~cells(hidden, labels[:, None])[:, 0] if self.visible_alone else weights
                total = total + pixel_loss(logits, labels, counted)
        loss = self.factor(now) * now.cfg.mrm_weight * total / (2 if self.twice else 1)
        loss.backward()
        return loss.detach()


def pixel_loss(logits: Tensor, labels: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """Cross-entropy at the size of the labels, mean over all pixels."""
    logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    return weighted_cross_entropy(logits, labels, weights)


def dacs_step(
    step: int,
    batch: Batch,
    models: Models,
    cfg: Settings,
    draws: Draws,
    change: Change | None = None,
    noise: float = 0.0,
) -> dict[str, Tensor]:
    """One step of DACS.

    Args:
        change: the pass beside it; None: DACS alone.
        noise: share of the pseudo-labels' blocks that get a class at random, for all passes.
    """
    network, teacher = models.network, models.teacher
    if step < 0 or cfg.method == "source-only":
        images = draws.colours("source", batch.source_images) if cfg.augment_source else batch.source_images
        loss = pixel_loss(network.decoder(network.encoder(images)), batch.source_labels)
        loss.backward()
        return {"source": loss.detach()}
    if step > 0:
        update_teacher(teacher, network, step, cfg.alpha)

    # supervised, on the source
    on_source = pixel_loss(network.decoder(network.encoder(batch.source_images)), batch.source_labels)
    on_source.backward()

    # pseudo-labels of the target; one weight for all of it, the share of confident pixels
    with torch.no_grad():
        probabilities = teacher.predict(batch.target_images).softmax(1)
    confidence, labels = probabilities.max(1)
    sure = (confidence >= cfg.threshold).float().mean()
    if noise:
        labels = with_noise(labels, noise, probabilities.shape[1], draws)
    trust, trusted = (sure * batch.target_trusted).mean(), batch.target_trusted
    if cfg.balance_labels:
        trusted = balance(trusted, labels, probabilities.shape[1])
    weights = sure * trusted

    # ClassMix: half of each source image's classes, pasted on the target
    pasted = draws.pasted(batch.source_labels)
    images = draws.colours("mixed", mix(pasted, batch.source_images, batch.target_images))
    mixed_labels = mix(pasted, batch.source_labels, labels)
    mixed_weights = mix(pasted, torch.ones_like(weights), weights)
    loss = pixel_loss(network.decoder(network.encoder(images)), mixed_labels, mixed_weights)
    now = Now(
        step,
        models,
        cfg,
        draws,
        (batch.target_images, labels, weights),
        (images, mixed_labels, mixed_weights),
        probabilities,
        trusted,
    )
    loss.backward()
    losses = {"source": on_source.detach(), "mixed": loss.detach(), "trust": trust}

    if change is not None:
        losses["mrm"] = change.own_pass(now)
    return losses


def with_noise(labels: Tensor, share: float, classes: int, draws: Draws) -> Tensor:
    """Labels (B, H, W) in which this share of the blocks of 12 pixels has a class at random, the right one included."""
    gens = [generator(draws.cfg.seed, "noise", draws.step, i) for i in range(len(labels))]
    size = [-(-side // 12) for side in labels.shape[-2:]]
    where = torch.stack([torch.rand(1, *size, generator=gen) for gen in gens]) < share
    which = torch.stack([torch.randint(classes, (1, *size), generator=gen) for gen in gens])
    where, which = (x.repeat_interleave(12, 2).repeat_interleave(12, 3)[:, 0] for x in (where, which))
    rows, cols = labels.shape[-2:]
    return torch.where(where[:, :rows, :cols], which[:, :rows, :cols], labels)
