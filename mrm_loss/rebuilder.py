"""The Rebuilder: masks an encoder's features and rebuilds them from what is left (paper, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from mrm_loss.checks import (
    check_block_size,
    check_channels,
    check_generator,
    check_grid,
    check_int,
    check_number,
    check_ratio,
    check_scale_factors,
    warn,
)
from mrm_loss.inputs import check_levels, check_mask
from mrm_loss.layers import Block, Projector, sincos_position
from mrm_loss.mask import draw_mask

if TYPE_CHECKING:
    from mrm_loss.mask_tokens import MaskTokens


class Rebuilder(nn.Module):
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
        super().__init__()
        self.encoder_channels, last_channels = check_channels(encoder_channels)
        self.scale_factors = check_scale_factors(scale_factors, self.encoder_channels)
        self.mask_ratio = check_ratio("mask_ratio", mask_ratio)
        self.grid_size = check_grid("grid_size", grid_size)
        self.block_size = check_block_size(block_size, self.grid_size)
        self.embed_dim = check_int("embed_dim", embed_dim, 4)
        depth = check_int("depth", depth, 1)
        num_heads = check_int("num_heads", num_heads, 1)
        hidden_dim = int(embed_dim * check_number("mlp_ratio", mlp_ratio, 0, above=True))
        if embed_dim % 4:
            raise ValueError(f"embed_dim: expected a multiple of 4 (2-D sin-cos position embedding), got {embed_dim}")
        if embed_dim % num_heads:
            raise ValueError(f"num_heads: expected a divisor of embed_dim={embed_dim}, got {num_heads}")
        if hidden_dim < 1:
            raise ValueError(f"mlp_ratio: expected at least one hidden unit, got {mlp_ratio} of width {embed_dim}")

        self.embed = nn.Linear(last_channels, embed_dim)
        self.mask_token = nn.Parameter(torch.empty(embed_dim))
        self.pos_embed: Tensor
        cells = self.grid_size[0] * self.grid_size[1]
        self.register_buffer("pos_embed", torch.empty(1, cells, embed_dim, dtype=torch.float32))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, hidden_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)
        self.projectors = nn.ModuleList(
            nn.Identity() if channels is None else Projector(embed_dim, channels, factor, self.grid_size)
            for channels, factor in zip(self.encoder_channels, self.scale_factors)
        )
        self.reset_parameters()
        self._warned_coarse = False

    def reset_parameters(self) -> None:
        """Embedding and blocks xavier-uniform with zero bias, mask token N(0, 0.02), the fixed position table."""
        self.pos_embed.copy_(sincos_position(self.grid_size, self.embed_dim))
        nn.init.normal_(self.mask_token, std=0.02)
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
        levels, mask = masked(self, self.mask_token.device, feats, mask, generator)
        tokens = self.rebuild_tokens(levels[-1], mask)
        rebuilt = [
            level if channels is None else fuse(level, project(tokens), mask)
            for level, channels, project in zip(levels, self.encoder_channels, self.projectors)
        ]
        return like(feats, rebuilt), mask

    def rebuild_tokens(self, last: Tensor, mask: Tensor) -> Tensor:
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

    def extra_repr(self) -> str:
        return (
            f"encoder_channels={self.encoder_channels}, scale_factors={self.scale_factors}, "
            f"grid_size={self.grid_size}, mask_ratio={self.mask_ratio}, block_size={self.block_size}"
        )


def masked(
    module: Rebuilder | MaskTokens,
    device: torch.device,
    feats: Any,
    mask: Tensor | None,
    generator: torch.Generator | None,
) -> tuple[list[Tensor], Tensor]:
    """The levels of `feats`, checked, and the mask that was given or is drawn now, on the device of both."""
    levels = check_levels(feats, module.encoder_channels)
    last = levels[-1]
    if last.device != device:
        raise ValueError(
            f"feats: expected features on {device}, where the {type(module).__name__} is, got {last.device}; "
            f"move it there: mrm.to({str(last.device)!r})"
        )
    _warn_if_coarse(module, last)
    if mask is None:
        check_generator(generator)
        mask = draw_mask(len(last), module.grid_size, module.mask_ratio, module.block_size, generator, device)
    mask = check_mask(mask, len(last), module.grid_size)
    return levels, mask.to(device, non_blocking=mask.device.type == "cpu")


def _warn_if_coarse(module: Rebuilder | MaskTokens, last: Tensor) -> None:
    if torch.compiler.is_compiling() or module._warned_coarse:
        return
    (height, width), (rows, cols) = last.shape[-2:], module.grid_size
    if height < rows or width < cols:
        module._warned_coarse = True
        warn(
            f"feats: the last level ({height} x {width}) is coarser than the mask's grid ({rows} x {cols}), so it "
            f"shows what finer levels hide; use grid_size=({min(height, rows)}, {min(width, cols)}) at this size"
        )


def fuse(level: Tensor, rebuilt: Tensor, mask: Tensor) -> Tensor:
    """Residual fusion: rebuilt values where masked, the level's own elsewhere (paper, section 3)."""
    size = level.shape[-2:]
    visible = F.interpolate((~mask).float(), size, mode="nearest").bool()
    # chosen, not blended: visible values stay bit-identical, and a NaN cannot leak into them; the first of the two
    # gives the result its memory layout
    return torch.where(visible, level, resize(rebuilt, size).to(level.dtype))


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear (B, C, H, W) -> (B, C, *size), pixel centres as in align_corners=False."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


def like(feats: Any, levels: list[Any]) -> Any:
    """The levels in the container that `feats` came in."""
    if isinstance(feats, Tensor):
        return levels[0]
    make = getattr(feats, "_make", type(feats))  # namedtuples take their fields one by one
    return make(levels)
