"""Masks an encoder's features and rebuilds nothing: the control of the Rebuilder, at the price of the pass alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mrm_loss.checks import (
    check_block_size,
    check_channels,
    check_grid,
    check_int,
    check_ratio,
    check_scale_factors,
)
from mrm_loss.layers import Projector
from mrm_loss.rebuilder import fuse, like, masked


class MaskTokens(nn.Module):
    """Masks 40 % of the features and puts what is learned of each level in their place; keeps the rest as it was.

    A Rebuilder whose tokens are all its normalised mask token: what a projector makes of it fills every masked cell
    alike (at the grid's edge, where cells lack a neighbour, with other values), whatever is visible. Its parameters
    have the Rebuilder's names.

    Args: as `mrm_loss.MRM`, which owns one where `rebuild` is False. Call, returns and errors: as `Rebuilder.forward`.
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
    ) -> None:
        super().__init__()
        self.encoder_channels, _ = check_channels(encoder_channels)
        self.scale_factors = check_scale_factors(scale_factors, self.encoder_channels)
        self.mask_ratio = check_ratio("mask_ratio", mask_ratio)
        self.grid_size = check_grid("grid_size", grid_size)
        self.block_size = check_block_size(block_size, self.grid_size)
        self.embed_dim = check_int("embed_dim", embed_dim, 4)
        self.mask_token = nn.Parameter(torch.empty(embed_dim))
        self.norm = nn.LayerNorm(embed_dim)
        self.projectors = nn.ModuleList(
            nn.Identity() if channels is None else Projector(embed_dim, channels, factor, self.grid_size)
            for channels, factor in zip(self.encoder_channels, self.scale_factors)
        )
        self.reset_parameters()
        self._warned_coarse = False

    def reset_parameters(self) -> None:
        """The mask token N(0, 0.02), as the Rebuilder's."""
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self, feats: Any, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Any, Tensor]:
        levels, mask = masked(self, self.mask_token.device, feats, mask, generator)
        # projected once for all images of the batch
        tokens = self.norm(self.mask_token)[None, :, None, None].expand(-1, -1, *self.grid_size)
        filled = [
            level if channels is None else fuse(level, project(tokens), mask)
            for level, channels, project in zip(levels, self.encoder_channels, self.projectors)
        ]
        return like(feats, filled), mask

    def extra_repr(self) -> str:
        return (
            f"encoder_channels={self.encoder_channels}, scale_factors={self.scale_factors}, "
            f"grid_size={self.grid_size}, mask_ratio={self.mask_ratio}, block_size={self.block_size}"
        )
