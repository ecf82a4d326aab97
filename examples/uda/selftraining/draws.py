"""Every random choice of a training step, in one place, so that a step function can be given others.

Sample i of step t gets its choices from a generator of its own, which depends on (seed, purpose, t, i) alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mrm_loss import random_mask

from ..networks import Box, Segmentor
from ..runtime.processes import ids_over_ranks, rank_and_world
from ..runtime.rng import generator
from ..settings import Settings
from .colours import strong_augment, weak_augment
from .mixing import block_mask, class_mask, draw_classes


class Draws:
    """The random choices of step `step` for the samples of this process."""

    def __init__(self, settings: Settings, step: int) -> None:
        self.cfg, self.step = settings, step
        self.first = rank_and_world()[0] * settings.batch_size

    def generators(self, purpose: str, count: int) -> list[torch.Generator]:
        """One CPU generator per sample."""
        return [generator(self.cfg.seed, purpose, self.step, self.first + i) for i in range(count)]

    def pasted(self, labels: Tensor, per_image: bool = True) -> Tensor:
        """ClassMix: where (B, H, W) source pixels are pasted; classes from each image, or from the whole batch's."""
        gens = self.generators("paste", len(labels))
        present = None if per_image else ids_over_ranks(labels)
        drawn = [draw_classes(y if present is None else present, gen) for y, gen in zip(labels, gens)]
        return torch.stack([class_mask(y, classes) for y, classes in zip(labels, drawn)])

    def colours(self, purpose: str, images: Tensor) -> Tensor:
        """Colour jitter and blur of images (B, 3, H, W)."""
        return strong_augment(images, self.generators(f"colours of {purpose}", len(images)), self.cfg.jitter)

    def weak_colours(self, purpose: str, images: Tensor) -> Tensor:
        """VFM-UDA's colour jitter of images (B, 3, H, W)."""
        return weak_augment(images, self.generators(f"weak colours of {purpose}", len(images)))

    def hidden(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Masked consistency on a transformer: the patches (B, rows, cols) that the mask token takes the place of."""
        draws = [torch.rand(grid, generator=gen) for gen in self.generators("tokens", len(images))]
        return (torch.stack(draws) < self.cfg.mic_mask_ratio).to(images.device)

    def kept(self, images: Tensor) -> Tensor:
        """Masked image consistency: the pixels (B, 1, H, W) that stay, in blocks."""
        size = (images.shape[-2], images.shape[-1])
        ratio, block = self.cfg.mic_mask_ratio, self.cfg.mic_block_size
        masks = [block_mask(1, size, ratio, block, gen) for gen in self.generators("blocks", len(images))]
        return torch.cat(masks).to(images.device)

    def box(self, purpose: str, network: Segmentor, images: Tensor) -> Box | None:
        """HRDA's detail crop, one for the whole batch and all processes; None where there is one resolution."""
        size = (images.shape[-2], images.shape[-1])
        return network.draw_box(size, generator(self.cfg.seed, f"box of {purpose}", self.step))

    def masked(self, purpose: str, images: Tensor) -> Tensor:
        """MRM: the masked cells (B, 1, rows, cols) of the token grid."""
        grid, ratio, block = self.cfg.mrm_grid, self.cfg.mrm_mask_ratio, self.cfg.mrm_block_size
        gens = self.generators(f"cells of {purpose}", len(images))
        return torch.cat([random_mask(1, grid, ratio, block, generator=gen) for gen in gens]).to(images.device)
