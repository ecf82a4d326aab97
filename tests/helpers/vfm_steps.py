"""Inputs, random choices and samples of the three recorded training steps of VFM-UDA (`vfm_steps`)."""

from __future__ import annotations

import numpy as np
import torch
from parity import Parity
from torch import Tensor

STEPS, CLASSES, CROP, BATCH = 3, 19, 56, 2
VIT = {"patch_size": 14, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 4.0, "init_values": 1.0}
TABLE = 42  # the position table's side in pixels, resized to that of the crops
RATE, WARMUP, TOTAL, THRESHOLD = 1e-2, 2, 10, 0.09
SCHEDULE = [*range(0, 1600, 25), *range(1600, 40001, 400)]  # steps of 40000 at which the rate's factor is compared


def weak(images: Tensor) -> Tensor:
    """Stands for the weak colours of images in [0, 1]."""
    return 0.9 * images + 0.05 * images.flip(1)


def strong(images: Tensor) -> Tensor:
    return 0.8 * images + 0.1


class Step:
    """What a training step is given: two batches and every random choice.

    images: (2, B, 3, H, W) uint8, of source and target. labels: (B, H, W) int64 with 255. ignored: (B, H, W) int64,
    255 where pseudo-labels are not trusted. pasted: (B, H, W) bool. hidden: (B, rows, cols) bool, patches.
    """

    def __init__(self, parity: Parity, index: int) -> None:
        def draw(k: int, *shape: int) -> np.ndarray:
            """In [0, 1)."""
            return (parity.base("hash", int(np.prod(shape)), 10 * index + k).reshape(shape) + 1) / 2

        self.images = torch.from_numpy(np.floor(256 * draw(0, 2, BATCH, 3, CROP, CROP)).astype(np.uint8))
        labels = np.floor(6 * draw(1, BATCH, 7, 7)).astype(np.int64).repeat(CROP // 7, 1).repeat(CROP // 7, 2)
        labels[draw(2, BATCH, CROP, CROP) < 0.1] = 255
        self.labels = torch.from_numpy(labels)
        self.ignored = torch.zeros(BATCH, CROP, CROP, dtype=torch.long)
        self.ignored[:, :5] = self.ignored[:, -9:] = 255
        present = torch.unique(self.labels)
        self.pasted = torch.stack([torch.isin(y, present[(index + q) % 2 :: 2]) for q, y in enumerate(self.labels)])
        side = int(CROP * 1.1 // VIT["patch_size"])
        self.hidden = torch.from_numpy(draw(3, BATCH, side, side) < 0.7)


def sample(tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """About 24 values of each tensor, one after the other, each divided by its tensor's spread; and the spreads."""
    flat = [tensor.detach().double().flatten() for tensor in tensors]
    spreads = torch.stack([x.std() if len(x) > 1 and x.std() > 0 else x.abs().max() for x in flat])
    return torch.cat([x[:: max(1, len(x) // 24)] / s.clamp(min=1e-300) for x, s in zip(flat, spreads)]), spreads
