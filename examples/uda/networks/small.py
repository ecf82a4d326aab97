"""Networks small enough to train on a laptop, for the embedded street scenes: a convolutional one and a transformer.

With their heads they have 0.21 and 0.25 million parameters. The convolutional encoder sees little beyond a cell (levels
at strides 4 and 8), its decoder gathers context with dilated convolutions, so that rebuilding a masked cell from its
surroundings is worth something.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrm_loss.layers import Block, sincos_position

from ..runtime.devices import to_device


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, 3, stride), conv(outputs, outputs)[:2])
        self.skip = nn.Identity() if stride == 1 and inputs == outputs else conv(inputs, outputs, 1, stride)[:2]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class SmallEncoder(nn.Module):
    """(B, 3, H, W) to levels (B, 32, H/4, W/4) and (B, 128, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.out_channels = [32, 128]
        self.strides = [4, 8]
        self.stem = nn.Sequential(conv(3, 16, stride=2), conv(16, 32, stride=2), ResidualBlock(32, 32, 1))
        self.stage = nn.Sequential(ResidualBlock(32, 64, 2), conv(64, 128, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        fine = self.stem(images)
        return [fine, self.stage(fine)]


class SmallDecoder(nn.Module):
    """Both levels to logits (B, K, H/4, W/4)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.reduce = conv(128, 64, 1)
        self.context = nn.ModuleList(conv(64, 64, dilation=dilation) for dilation in (1, 2, 4))
        self.lateral = nn.Conv2d(32, 24, 1)
        self.fuse = conv(64 + 24, 48, 1)
        self.classify = nn.Conv2d(48, num_classes, 1)

    def forward(self, feats: list[Tensor]) -> Tensor:
        fine, coarse = feats
        x = self.reduce(coarse)
        for layer in self.context:
            x = x + layer(x)
        x = F.interpolate(x, fine.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.classify(self.fuse(torch.cat([x, self.lateral(fine)], dim=1)))
        return logits


class SmallViT(nn.Module):
    """A vision transformer for `ViTEncoder`, with timm's interface and fixed positions.

    Its patches of 8 x 8 pixels are embedded by three convolutions, without which so small a transformer learns little
    in the minutes that it has.
    """

    patch_size = 8

    def __init__(self, embed_dim: int = 64, depth: int = 4, num_heads: int = 2) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        stem = (conv(3, 32, stride=2), conv(32, 64, stride=2), nn.Conv2d(64, embed_dim, 2, stride=2))
        self.patch_embed = nn.Sequential(*stem, ChannelsLast())
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, 4 * embed_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)

    def forward_intermediates(self, images: Tensor, indices: list[int], **_: Any) -> list[Tensor]:
        """(B, 3, H, W) to the normalised outputs (B, C, H/8, W/8) of these blocks."""
        x = self.patch_embed(images)  # (B, rows, cols, C)
        rows, cols = x.shape[1:3]
        x = x.flatten(1, 2) + to_device(sincos_position((rows, cols), self.embed_dim), x.device, x.dtype)
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in indices:
                levels.append(self.norm(x).mT.unflatten(-1, (rows, cols)))
        return levels


class ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, H, W, C)."""
        return x.movedim(1, -1)
