"""A segmentation network just large enough to test a loss on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrm_loss import MRM

CHANNELS = [8, 12, 16]
CLASSES = 5


class ToyEncoder(nn.Module):
    """(B, 3, H, W) -> three levels at strides 2, 4, 8."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *CHANNELS]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in zip(widths, CHANNELS)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        feats = []
        for stage in self.stages:
            x = stage(x)
            feats.append(x)
        return feats


class ToyDecoder(nn.Module):
    """Levels -> logits (B, CLASSES, h, w) at the finest level's size."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in CHANNELS)
        self.norm = nn.BatchNorm2d(8)
        self.classify = nn.Conv2d(8, CLASSES, 1)

    def forward(self, feats: list[Tensor]) -> Tensor:
        size = feats[0].shape[-2:]
        x = sum(F.interpolate(lateral(f), size, mode="bilinear") for lateral, f in zip(self.lateral, feats))
        return self.classify(self.norm(x).relu())


class ToyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = ToyEncoder(), ToyDecoder()

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def small_mrm(channels=CHANNELS, decoder_fn=None, **options) -> MRM:
    """An MRM that costs a test nothing."""
    return MRM(channels, decoder_fn, **{"grid_size": 4, "embed_dim": 16, "num_heads": 2, **options})


def images(batch: int = 2, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.randn(batch, 3, *size)


def labels(batch: int = 2, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.randint(CLASSES, (batch, *size))


def learn(model: ToyModel, mrm: MRM, x: Tensor, y: Tensor, steps: int, lr: float) -> list[float]:
    """MRM's loss at each step of training on it alone."""
    optimizer = torch.optim.AdamW([*model.parameters(), *mrm.parameters()], lr=lr)
    losses = []
    for _ in range(steps):
        loss = mrm(model.encoder(x), model.decoder, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
