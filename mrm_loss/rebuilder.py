"""The Rebuilder: masks an encoder's features and rebuilds them from what is left (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mrm_loss.checks import (
    check,
    check_channels,
    check_int,
    check_levels,
    check_mask,
    check_masking,
    check_scale_factors,
    warn,
)
from mrm_loss.layers import Block, Projector, sincos_position
from mrm_loss.mask import move, random_mask


class Rebuilder(nn.Module):
    """Masks 40 % of the features, rebuilds them with two transformer blocks, keeps the rest as it was.

        rebuilder = Rebuilder([64, 128, 320, 512])
        rebuilt, mask = rebuilder(encoder(images))

    Args: as `mrm_loss.MRM`, which owns one.
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
        mask_only: bool = False,
    ) -> None:
        super().__init__()
        self.encoder_channels, last_channels = check_channels(encoder_channels)
        self.scale_factors = check_scale_factors(scale_factors, self.encoder_channels)
        self.grid_size = check_masking(grid_size, mask_ratio, block_size)
        self.mask_ratio, self.block_size = mask_ratio, block_size
        check(check_int("embed_dim", embed_dim) % 4 == 0, "embed_dim", "a multiple of 4", embed_dim)
        self.embed_dim = embed_dim
        self.mask_only = mask_only
        self._warned_coarse = False

        self.mask_token = nn.Parameter(torch.empty(embed_dim))
        if not mask_only:
            check_int("depth", depth, 0)
            check_int("num_heads", num_heads)
            check(embed_dim % num_heads == 0, "num_heads", f"a divisor of embed_dim={embed_dim}", num_heads)
            hidden_dim = int(embed_dim * mlp_ratio)
            check(hidden_dim > 0, "mlp_ratio", f"at least one hidden unit at embed_dim={embed_dim}", mlp_ratio)
            rows, cols = self.grid_size
            self.embed = nn.Linear(last_channels, embed_dim)
            self.pos_embed: Tensor
            self.register_buffer("pos_embed", torch.empty(1, rows * cols, embed_dim, dtype=torch.float32))
            self.blocks = nn.ModuleList(Block(embed_dim, num_heads, hidden_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)
        self.projectors = nn.ModuleList(
            nn.Identity() if channels is None else Projector(embed_dim, channels, factor)
            for channels, factor in zip(self.encoder_channels, self.scale_factors)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Mask token N(0, 0.02), embedding and blocks xavier-uniform with zero bias, the fixed position table."""
        nn.init.normal_(self.mask_token, std=0.02)
        if self.mask_only:
            return
        self.pos_embed.copy_(sincos_position(self.grid_size, self.embed_dim))
        for module in [self.embed, *self.blocks.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self, feats: Any, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Any, Tensor]:
        """Rebuilds the masked cells of every level.

        Args:
            feats: tensor (B, C, H, W), or list or tuple of them, fine to coarse, one per entry of encoder_channels.
            mask: bool (B, 1, rows, cols) of the grid, True = masked; drawn where None.
            generator: draws the mask; a CPU generator also serves features on another device.

        Returns:
            (rebuilt features, mask): the features in the container, shapes, dtypes and on the device they came in.
            Where the mask is False they are bit-identical to `feats`.

        Raises:
            TypeError, ValueError: `feats` or `mask` do not fit.
        """
        device = self.mask_token.device
        levels = check_levels(feats, self.encoder_channels, device)  # each (B, C, H, W)
        last = levels[-1]
        self._warn_if_coarse(last)
        if mask is None:
            mask = random_mask(
                len(last), self.grid_size, self.mask_ratio, self.block_size, generator=generator, device=device
            )
        mask = move(check_mask(mask, len(last), self.grid_size), device)  # (B, 1, rows, cols), True = masked
        tokens = self.make_tokens(last, mask)  # (B, embed_dim, rows, cols)
        rebuilt = [
            level if channels is None else fuse(level, project(tokens), mask)  # (B, C, H, W)
            for level, channels, project in zip(levels, self.encoder_channels, self.projectors)
        ]
        if isinstance(feats, Tensor):
            return rebuilt[0], mask
        make = getattr(feats, "_make", type(feats))  # namedtuples take their fields one by one
        return make(rebuilt), mask

    def make_tokens(self, last: Tensor, mask: Tensor) -> Tensor:
        """Coarsest level (B, C, H, W) and mask (B, 1, rows, cols) -> rebuilt tokens (B, embed_dim, rows, cols).

        Without rebuilding: the normalised mask token in every cell, (1, embed_dim, rows, cols) for all images.
        """
        rows, cols = self.grid_size
        if self.mask_only:
            token: Tensor = self.norm(self.mask_token)
            return token[None, :, None, None].expand(-1, -1, rows, cols)

        last = last.to(self.embed.weight.dtype)
        # Linear and resize commute (bilinear weights sum to 1): the one that leaves less work to the other goes first
        if last.shape[-2] * last.shape[-1] > rows * cols:
            last = resize(last, self.grid_size)
        z: Tensor = rearrange(self.embed(rearrange(last, "b c h w -> b h w c")), "b h w e -> b e h w")
        z = rearrange(resize(z, self.grid_size), "b e r c -> b (r c) e")

        z = torch.where(rearrange(mask, "b 1 r c -> b (r c) 1"), self.mask_token, z)
        z = z + self.pos_embed.to(z.dtype)  # FSDP lowers the precision of parameters, not of buffers
        for block in self.blocks:
            z = block(z)
        z = rearrange(self.norm(z), "b (r c) e -> b e r c", r=rows)
        return z

    def _warn_if_coarse(self, last: Tensor) -> None:
        if torch.compiler.is_compiling() or self._warned_coarse:
            return
        (height, width), (rows, cols) = last.shape[-2:], self.grid_size
        if height < rows or width < cols:
            self._warned_coarse = True
            warn(
                f"feats: the last level ({height} x {width}) is coarser than the mask's grid ({rows} x {cols}), so it "
                f"shows what finer levels hide; use grid_size=({min(height, rows)}, {min(width, cols)}) at this size"
            )

    def extra_repr(self) -> str:
        return (
            f"encoder_channels={self.encoder_channels}, scale_factors={self.scale_factors}, "
            f"grid_size={self.grid_size}, mask_ratio={self.mask_ratio}, block_size={self.block_size}"
        )


def fuse(level: Tensor, rebuilt: Tensor, mask: Tensor) -> Tensor:
    """Residual fusion: rebuilt values where masked, the level's own elsewhere (paper, section 3)."""
    size = level.shape[-2:]
    visible = F.interpolate((~mask).float(), size, mode="nearest").bool()  # (B, 1, H, W)
    # chosen, not blended: visible values stay bit-identical, and a NaN cannot leak into them; the first of the two
    # gives the result its memory layout
    return torch.where(visible, level, resize(rebuilt, size).to(level.dtype))


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear (B, C, H, W) -> (B, C, *size), pixel centres as in align_corners=False."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
