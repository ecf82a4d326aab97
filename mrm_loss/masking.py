"""Masks an encoder's features and fills what is masked from tokens: what Rebuilder and MaskTokens have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mrm_loss.checks import (
    check_block_size,
    check_channels,
    check_generator,
    check_grid,
    check_int,
    check_ratio,
    check_scale_factors,
    warn,
)
from mrm_loss.inputs import check_levels, check_mask
from mrm_loss.layers import Projector
from mrm_loss.mask import draw_mask


class Masking(nn.Module):
    """Masks features and fills the masked cells of each level with what its projector makes of tokens.

    Subclasses set `mask_token` and `projectors` and define `make_tokens`. Args: as `mrm_loss.MRM`.
    """

    mask_token: Tensor
    projectors: nn.ModuleList

    def __init__(
        self,
        encoder_channels: int | Sequence[int | None],
        scale_factors: int | Sequence[int | None] | None,
        mask_ratio: float,
        block_size: int,
        grid_size: int | tuple[int, int],
        embed_dim: int,
    ) -> None:
        super().__init__()
        self.encoder_channels, self.last_channels = check_channels(encoder_channels)
        self.scale_factors = check_scale_factors(scale_factors, self.encoder_channels)
        self.mask_ratio = check_ratio("mask_ratio", mask_ratio)
        self.grid_size = check_grid("grid_size", grid_size)
        self.block_size = check_block_size(block_size, self.grid_size)
        self.embed_dim = check_int("embed_dim", embed_dim, 4)
        self._warned_coarse = False

    def new_projectors(self) -> nn.ModuleList:
        """One per level, the identity for those that pass through."""
        return nn.ModuleList(
            nn.Identity() if channels is None else Projector(self.embed_dim, channels, factor, self.grid_size)
            for channels, factor in zip(self.encoder_channels, self.scale_factors)
        )

    def make_tokens(self, last: Tensor, mask: Tensor) -> Tensor:
        """Coarsest level (B, C, H, W) and mask (B, 1, rows, cols) -> tokens (B or 1, embed_dim, rows, cols)."""
        raise NotImplementedError

    def forward(
        self, feats: Any, mask: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Any, Tensor]:
        """Fills the masked cells of every level.

        Args:
            feats: tensor (B, C, H, W), or list or tuple of them, fine to coarse, one per entry of encoder_channels.
            mask: bool (B, 1, rows, cols) of the grid, True = masked; drawn where None.
            generator: draws the mask; a CPU generator also serves features on another device.

        Returns:
            (filled features, mask): the features in the container, shapes, dtypes and on the device they came in.
            Where the mask is False they are bit-identical to `feats`.

        Raises:
            TypeError, ValueError: `feats` or `mask` do not fit.
        """
        levels = check_levels(feats, self.encoder_channels)
        mask = self._mask_of(levels[-1], mask, generator)
        tokens = self.make_tokens(levels[-1], mask)
        filled = [
            level if channels is None else fuse(level, project(tokens), mask)
            for level, channels, project in zip(levels, self.encoder_channels, self.projectors)
        ]
        if isinstance(feats, Tensor):
            return filled[0], mask
        make = getattr(feats, "_make", type(feats))  # namedtuples take their fields one by one
        return make(filled), mask

    def _mask_of(self, last: Tensor, mask: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """The mask that was given or is drawn now, on the features' device, which must be the module's."""
        device = self.mask_token.device
        if last.device != device:
            raise ValueError(
                f"feats: expected features on {device}, where the {type(self).__name__} is, got {last.device}; "
                f"move it there: mrm.to({str(last.device)!r})"
            )
        self._warn_if_coarse(last)
        if mask is None:
            check_generator(generator)
            mask = draw_mask(len(last), self.grid_size, self.mask_ratio, self.block_size, generator, device)
        mask = check_mask(mask, len(last), self.grid_size)
        return mask.to(device, non_blocking=mask.device.type == "cpu")

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


def fuse(level: Tensor, filling: Tensor, mask: Tensor) -> Tensor:
    """Residual fusion: the filling where masked, the level's own values elsewhere (paper, section 3)."""
    size = level.shape[-2:]
    visible = F.interpolate((~mask).float(), size, mode="nearest").bool()
    # chosen, not blended: visible values stay bit-identical, and a NaN cannot leak into them; the first of the two
    # gives the result its memory layout
    return torch.where(visible, level, resize(filling, size).to(level.dtype))


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear (B, C, H, W) -> (B, C, *size), pixel centres as in align_corners=False."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
