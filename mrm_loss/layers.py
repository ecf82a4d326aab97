"""The Rebuilder's layers: transformer blocks, projectors, position table (paper, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class Projector(nn.Sequential):
    """Tokens (B, embed_dim, r, c) -> (B, channels, r * 2^n, c * 2^n) with n = floor(log2(factor)).

    Transposed convolutions, each of which doubles the size, a 1 x 1 convolution and a norm.
    """

    def __init__(self, embed_dim: int, channels: int, factor: int) -> None:
        layers: list[nn.Module] = []
        width = embed_dim
        for i in range(factor.bit_length() - 1):
            if i > 0:
                layers += [ChannelNorm(width, eps=1e-6), nn.GELU()]
            narrow = embed_dim // 2 if i == 0 else embed_dim // 4
            layers.append(nn.ConvTranspose2d(width, narrow, kernel_size=4, stride=2, padding=1))
            width = narrow
        super().__init__(*layers, nn.Conv2d(width, channels, kernel_size=1), ChannelNorm(channels, eps=1e-6))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W), in its weights' precision; copies nothing of x in channels last."""

    def forward(self, x: Tensor) -> Tensor:
        # as autocast does on CUDA; on a CPU it would sum its gradients in half precision
        x = x.to(torch.promote_types(x.dtype, self.weight.dtype))
        return rearrange(super().forward(rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")


class Block(nn.Module):
    """Pre-norm ViT block on tokens (B, N, dim)."""

    def __init__(self, dim: int, num_heads: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x


class Attention(nn.Module):
    """Multi-head self-attention on tokens (B, N, dim)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        x = rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")
        out: Tensor = self.proj(x)
        return out


def sincos_position(grid_size: tuple[int, int], dim: int) -> Tensor:
    """Fixed 2-D position table (1, rows * cols, dim): row in the first half of the width, column in the second."""
    rows, cols = grid_size
    # on the CPU whatever the default device: not every device has float64
    frequency = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64, device="cpu") / (dim / 4))

    def code(positions: int) -> Tensor:
        angle = torch.arange(positions, dtype=torch.float64, device="cpu")[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    table = torch.cat([code(rows)[:, None].expand(-1, cols, -1), code(cols)[None].expand(rows, -1, -1)], dim=-1)
    return rearrange(table, "r c e -> 1 (r c) e").float()
