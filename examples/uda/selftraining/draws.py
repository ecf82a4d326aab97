"""Every random choice of a training step, in one place, so that a step function can be given others.

Sample i of step t gets its choices from a generator of its own, which depends on (seed, purpose, t, i) alone. They are
drawn on the CPU, for the whole batch, and moved to the images' device at once, without waiting for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mrm_loss import random_mask

from ..networks import Box, Segmentor
from ..runtime.devices import to_device
from ..runtime.processes import any_of_ranks, rank_and_world
from ..runtime.rng import generator
from ..settings import Settings
from .colours import strong_augment, weak_augment
from .mixing import IDS, class_mask, draw_blocks, halve, keep_blocks, present_ids


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
        draws = torch.stack([torch.rand(IDS, generator=gen) for gen in self.generators("paste", len(labels))])
        present = present_ids(labels)
        present = present if per_image else any_of_ranks(present.any(0, keepdim=True))
        return class_mask(labels, halve(present, to_device(draws, labels.device)))

    def colours(self, purpose: str, images: Tensor) -> Tensor:
        """Colour jitter and blur of images (B, 3, H, W)."""
        return strong_augment(images, self.generators(f"colours of {purpose}", len(images)))

    def weak_colours(self, purpose: str, images: Tensor) -> Tensor:
        """VFM-UDA's colour jitter of images (B, 3, H, W)."""
        return weak_augment(images, self.generators(f"weak colours of {purpose}", len(images)))

    def hidden(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Masked consistency on a transformer: the patches (B, rows, cols) that the mask token takes the place of."""
        draws = [torch.rand(grid, generator=gen) for gen in self.generators("tokens", len(images))]
        return to_device(torch.stack(draws) < self.cfg.mic_mask_ratio, images.device)

    def kept(self, images: Tensor) -> Tensor:
        """Masked image consistency: the pixels (B, 1, H, W) that stay, in blocks."""
        size = (images.shape[-2], images.shape[-1])
        gens = self.generators("blocks", len(images))
        draws = torch.stack([draw_blocks(size, self.cfg.mic_block_size, gen) for gen in gens])
        return keep_blocks(to_device(draws, images.device), size, self.cfg.mic_mask_ratio)

    def box(self, purpose: str, network: Segmentor, images: Tensor) -> Box | None:
        """HRDA's detail crop, one for the whole batch and all processes; None where there is one resolution."""
        size = (images.shape[-2], images.shape[-1])
        return network.draw_box(size, generator(self.cfg.seed, f"box of {purpose}", self.step))

    def masked(self, purpose: str, images: Tensor) -> Tensor:
        """MRM: the masked cells (B, 1, rows, cols) of the token grid."""
        grid, ratio, block = self.cfg.mrm_grid, self.cfg.mrm_mask_ratio, self.cfg.mrm_block_size
        gens = self.generators(f"cells of {purpose}", len(images))
        masks = torch.cat([random_mask(1, grid, ratio, block, generator=gen) for gen in gens])
        return to_device(masks, images.device)
