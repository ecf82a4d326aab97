"""Vision transformers of timm as encoders: DINOv2, DINOv3, EVA-02 and others.

The weights' licences differ: DINOv2 Apache 2.0, EVA-02 MIT, DINOv3 a licence of its own with conditions on use and
on passing on what was made from them.

Source: VFM-UDA (Englert et al., CVPR workshops 2024) and its code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MethodType
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import make_body


class ViTEncoder(nn.Module):
    """A vision transformer as an encoder of levels (B, C, rows, cols), all of one size, a cell per patch.

    Args:
        body: as timm's: `patch_embed` from images to (B, rows, cols, C), `forward_intermediates`, `blocks`,
            `embed_dim`.
        patch_size: side of a patch in pixels.
        levels: how many blocks' outputs are levels, spread evenly over the depth and each through the final norm (our
            choice, as DINOv2's own heads do it); the last is what VFM-UDA uses alone.
        scale: images are resized by this, each side rounded down to whole patches.

    `mask_token` stands for the patches that `masked` hides. It starts at zero, but for DINOv2's own files, which hold
    one.
    """

    def __init__(self, body: Any, patch_size: int, levels: int = 1, scale: float = 1.1) -> None:
        super().__init__()
        self.body = body
        self.patch_size, self.scale = patch_size, scale
        width, depth = body.embed_dim, len(body.blocks)
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.blocks = [depth * (level + 1) // levels - 1 for level in range(levels)]
        self.out_channels: list[int] = [width] * levels
        self.strides = [patch_size / scale] * levels  # pixels of the image per cell

    def grid(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of patches that images of this (H, W) are cut into."""
        rows, cols = (max(1, int(edge * self.scale // self.patch_size)) for edge in size)
        return rows, cols

    def forward(self, images: Tensor, masked: Tensor | None = None) -> list[Tensor]:
        """(B, 3, H, W) to levels (B, C, rows, cols).

        Args:
            masked: (B, rows, cols) bool, True where the mask token takes the patch's place before the first block.
        """
        grid = self.grid(images.shape[-2:])
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        if masked is None:
            return self._levels(images)
        if masked.shape != (len(images), *grid) or masked.dtype != torch.bool:
            expected = (len(images), *grid)
            raise ValueError(f"masked: expected bool {expected}, got {masked.dtype} {tuple(masked.shape)}")

        def hide(_: nn.Module, __: Any, patches: Tensor) -> Tensor:
            return torch.where(masked.unsqueeze(-1), self.mask_token.to(patches.dtype), patches)

        hook = self.body.patch_embed.register_forward_hook(hide)
        try:
            return self._levels(images)
        finally:
            hook.remove()

    def _levels(self, images: Tensor) -> list[Tensor]:
        levels = self.body.forward_intermediates(images, indices=self.blocks, norm=True, intermediates_only=True)
        return cast("list[Tensor]", levels)


def timm_vit(
    name: str, weights: str | None = None, levels: int = 1, drop_path: float = 0.0, **options: Any
) -> ViTEncoder:
    """One of timm's vision transformers, for images of any size.

    Args:
        name: such as "vit_base_patch14_dinov2.lvd142m", "vit_large_patch16_dinov3.lvd1689m" or
            "eva02_small_patch14_224.mim_in22k".
        weights: see `make_body`.
        levels: see `ViTEncoder`.
        drop_path: largest probability of skipping a residual branch; none in VFM-UDA.
        options: of `timm.create_model`, such as another depth.
    """
    body, state = make_body(name, weights, dynamic_img_size=True, drop_path_rate=drop_path, **options)
    body.reset_classifier(0)
    if isinstance(body.norm, nn.Identity):  # EVA-02 has its final norm behind the pooling
        body.norm, body.fc_norm = body.fc_norm, nn.Identity()
    if "dinov2" in name and body.reg_token is None:
        use_dinov2_positions(body)
    encoder = ViTEncoder(body, body.patch_embed.patch_size[0], levels)
    if state is not None and "mask_token" in state:
        encoder.mask_token.data.copy_(state["mask_token"].view_as(encoder.mask_token))
    return encoder


def use_dinov2_positions(body: Any) -> None:
    """Makes a timm transformer resize its positions as DINOv2's own code does."""
    body._pos_embed = MethodType(dinov2_tokens, body)


def dinov2_tokens(body: Any, patches: Tensor) -> Tensor:
    """Patches (B, rows, cols, C) to tokens (B, 1 + rows * cols, C) with class token and positions.

    DINOv2's own code resizes its position table otherwise than timm does: bicubic without antialiasing, as if the grid
    were larger by a tenth of a patch.
    """
    rows, cols = patches.shape[1:3]
    positions: Tensor = body.pos_embed
    table = positions[:, 1:] if positions.itemsize >= 4 else positions[:, 1:].float()
    side = math.isqrt(table.shape[1])
    if (rows, cols) != (side, side):
        table = table.unflatten(1, (side, side)).movedim(-1, 1)  # (1, C, side, side)
        factors = ((rows + 0.1) / side, (cols + 0.1) / side)
        table = F.interpolate(table, scale_factor=factors, mode="bicubic").flatten(2).mT
    positions = torch.cat([positions[:, :1], table.to(positions.dtype)], dim=1)
    tokens = torch.cat([body.cls_token.expand(len(patches), -1, -1), patches.flatten(1, 2)], dim=1)
    return cast(Tensor, body.pos_drop(tokens + positions))
