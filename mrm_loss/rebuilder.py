"""The Rebuilder: masks an encoder's features and rebuilds them from what is left (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from mrm_loss.checks import check_int, check_number
from mrm_loss.layers import Block, sincos_position
from mrm_loss.masking import Masking, resize


class Rebuilder(Masking):
    """Masks 40 % of the features, rebuilds them with two transformer blocks, keeps the rest as it was.

    Args: as `mrm_loss.MRM`, which owns one.

        rebuilder = Rebuilder([64, 128, 320, 512])
        rebuilt, mask = rebuilder(encoder(images))
    """

    def __init__(
        self,
        encoder_channels: int | Sequence[int | None],
        *,
        scale_factors: int | Sequence[int | None] | None = None,
        mask_ratio: float = 0.4,
        block_size: int = 1,
        grid_size: int | tuple[int, int] = 16,
        embed_dim: int = 512,
        depth: int = 2,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__(encoder_channels, scale_factors, mask_ratio, block_size, grid_size, embed_dim)
        depth = check_int("depth", depth, 1)
        num_heads = check_int("num_heads", num_heads, 1)
        hidden_dim = int(embed_dim * check_number("mlp_ratio", mlp_ratio, 0, above=True))
        if embed_dim % 4:
            raise ValueError(f"embed_dim: expected a multiple of 4 (2-D sin-cos position embedding), got {embed_dim}")
        if embed_dim % num_heads:
            raise ValueError(f"num_heads: expected a divisor of embed_dim={embed_dim}, got {num_heads}")
        if hidden_dim < 1:
            raise ValueError(f"mlp_ratio: expected at least one hidden unit, got {mlp_ratio} of width {embed_dim}")

        self.embed = nn.Linear(self.last_channels, embed_dim)
        self.mask_token = nn.Parameter(torch.empty(embed_dim))
        self.pos_embed: Tensor
        cells = self.grid_size[0] * self.grid_size[1]
        self.register_buffer("pos_embed", torch.empty(1, cells, embed_dim, dtype=torch.float32))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, hidden_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)
        self.projectors = self.new_projectors()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Embedding and blocks xavier-uniform with zero bias, mask token N(0, 0.02), the fixed position table."""
        self.pos_embed.copy_(sincos_position(self.grid_size, self.embed_dim))
        nn.init.normal_(self.mask_token, std=0.02)
        for module in [self.embed, *self.blocks.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def make_tokens(self, last: Tensor, mask: Tensor) -> Tensor:
        """Coarsest level (B, C, H, W) and mask (B, 1, rows, cols) -> rebuilt tokens (B, embed_dim, rows, cols)."""
        rows, cols = self.grid_size
        last = last.to(self.embed.weight.dtype)
        # Linear and resize commute (bilinear weights sum to 1): the one that leaves less work to the other goes first
        if last.shape[-2] * last.shape[-1] > rows * cols:
            last = resize(last, self.grid_size)
        z: Tensor = rearrange(self.embed(rearrange(last, "b c h w -> b h w c")), "b h w e -> b e h w")
        z = rearrange(resize(z, self.grid_size), "b e h w -> b (h w) e")

        z = torch.where(rearrange(mask, "b 1 h w -> b (h w) 1"), self.mask_token.to(z.dtype), z)
        z = z + self.pos_embed.to(z.dtype)
        for block in self.blocks:
            z = block(z)
        z = rearrange(self.norm(z), "b (h w) e -> b e h w", h=rows)
        return z
