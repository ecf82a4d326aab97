"""The Rebuilder's arithmetic written as plainly as can be, under the parameter names of the authors' file.

What `compare_official.py` measures against where that file is not given: stock layers, one projector after another,
fusion by multiplying and adding. At a 512 crop only, as theirs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID, WIDTH, HEADS = 16, 512, 16


def generate_mask(shape: Any, device: Any, mask_ratio: float) -> Tensor:
    """1 = keep."""
    return (torch.rand(shape[0], 1, GRID, GRID, device=device) > mask_ratio).float()


class Rebuilder(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        channels = config["in_channels"]
        self.embedding = nn.ModuleDict(
            {"linear_embed": nn.Linear(channels[-1] if config["type"] == "DAFormerHead" else channels, WIDTH)}
        )
        self.transformer = Transformer()
        if config["type"] == "DAFormerHead":
            scales = (8, 4, 2, 1)
            self.projector: nn.Module = nn.ModuleDict(
                {f"projector{i + 1}": Projector(c, s) for i, (c, s) in enumerate(zip(channels, scales))}
            )
        else:
            self.projector = Projector(channels, 4)

    def forward(self, feats: list[Tensor]) -> list[Tensor]:
        b, _, h, w = feats[-1].shape
        x = self.embedding["linear_embed"](feats[-1].flatten(2).transpose(1, 2))
        x = x.transpose(1, 2).reshape(b, WIDTH, h, w)
        x = F.interpolate(x, (GRID, GRID), mode="bilinear", align_corners=False)
        keep = generate_mask(shape=x.shape, device=x.device, mask_ratio=0.4)
        x = self.transformer(x, keep)
        projectors = self.projector.values() if isinstance(self.projector, nn.ModuleDict) else [self.projector]
        return [project(x, f, keep) for project, f in zip(projectors, feats)]


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.randn(1, WIDTH, 1, 1) * 0.02)
        self.pos_embed = nn.Parameter(positions(), requires_grad=False)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        b = x.shape[0]
        x = x * keep + self.mask_token * (1 - keep)
        x = x.flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x).transpose(1, 2).reshape(b, WIDTH, GRID, GRID)


def positions() -> Tensor:
    """(1, 256, 512): sine and cosine of the row, then of the column."""
    frequencies = 1 / 10000 ** (torch.arange(WIDTH // 4).double() / (WIDTH / 4))
    row, column = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    angles = [index.flatten()[:, None] * frequencies for index in (row, column)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)[None].float()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, WIDTH))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 4 * WIDTH), "fc2": nn.Linear(4 * WIDTH, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Projector(nn.Module):
    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        half, quarter = WIDTH // 2, WIDTH // 4
        first = nn.ConvTranspose2d(WIDTH, half, 4, 2, 1)
        second = [LayerNorm2d(half, eps=1e-6), nn.GELU(), nn.ConvTranspose2d(half, quarter, 4, 2, 1)]
        third = [LayerNorm2d(quarter, eps=1e-6), nn.GELU(), nn.ConvTranspose2d(quarter, quarter, 4, 2, 1)]
        layers = {1: [], 2: [first], 4: [first, *second], 8: [first, *second, *third]}[scale]
        width = {1: WIDTH, 2: half, 4: quarter, 8: quarter}[scale]
        self.fpn = nn.Sequential(*layers, nn.Conv2d(width, channels, 1))
        self.norm = LayerNorm2d(channels, eps=1e-6)

    def forward(self, x: Tensor, level: Tensor, keep: Tensor) -> Tensor:
        keep = F.interpolate(keep, level.shape[-2:], mode="nearest")
        return level * keep + self.norm(self.fpn(x)) * (1 - keep)
