"""ClassMix for mixing domains and block masks for masked image consistency.

Every random choice is one small function, and what is done with the choice another, so that a test or a
resumed run can supply the choice itself.

Sources: ClassMix (Olsson et al., WACV 2021), DACS (Tranheden et al., WACV 2021), MIC (Hoyer et al., CVPR 2023,
"Masked Image Consistency"). What is left open there is done as in the authors' code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def draw_classes(labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw half of the classes that occur in a label map, rounded up, without replacement.

    DACS draws from the classes of one image: give one label map. DAFormer, HRDA and MIC draw, once per image,
    from the classes of the whole batch: give the batch each time. The ignore index counts as a class in both.

    Args:
        labels: class ids, any shape, integer.
        generator: CPU generator; the global CPU RNG by default.

    Returns:
        The drawn ids, (n,) with n = ceil(present / 2), int64, on the device of `labels`.
    """
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must hold integer class ids, got dtype {labels.dtype}")
    if labels.numel() == 0:
        raise ValueError(f"labels must hold at least one pixel, got shape {tuple(labels.shape)}")
    present: Tensor = torch.unique(labels).long()
    order = torch.randperm(len(present), generator=generator)
    return present[order[: (len(present) + 1) // 2].to(present.device)]


def class_mask(labels: Tensor, classes: Tensor) -> Tensor:
    """Where `labels` is one of `classes`: the pixels ClassMix pastes. Bool, the shape of `labels`."""
    return torch.isin(labels, classes.to(labels))


def mix(mask: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Paste `source` on `target` where `mask` is True.

    Args:
        mask: bool, (H, W), (B, H, W) or (B, 1, H, W).
        source: (..., H, W); images (B, 3, H, W), labels or weights (B, H, W).
        target: as `source`.

    Returns:
        `source` where the mask is True and `target` elsewhere, in the shape of `source`. A mask (B, H, W) is
        used for every channel of (B, C, H, W).
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True where the source is pasted, got dtype {mask.dtype}")
    if source.shape != target.shape:
        raise ValueError(f"source and target must have one shape, got {tuple(source.shape)} and {tuple(target.shape)}")
    if mask.ndim == 3 and source.ndim == 4:
        mask = mask.unsqueeze(1)
    elif mask.ndim == 4 and source.ndim == 3:
        mask = mask.squeeze(1)
    if mask.ndim > source.ndim or mask.shape[-2:] != source.shape[-2:]:
        raise ValueError(
            f"mask must cover the pixels of source {tuple(source.shape)}, got a mask of shape {tuple(mask.shape)}"
        )
    return torch.where(mask, source, target)


def block_mask(
    batch: int,
    size: tuple[int, int],
    mask_ratio: float = 0.7,
    block_size: int = 64,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw MIC's keep-mask: each block of an image is removed with probability `mask_ratio`.

    `images * block_mask(...)` puts the removed pixels to zero, the mean colour of normalised images.

    Args:
        batch: number of images.
        size: (H, W) of the images in pixels; need not be a multiple of the block.
        mask_ratio: share of blocks removed, in [0, 1].
        block_size: edge of a block in pixels.
        generator: CPU generator; the global CPU RNG by default. The draw does not depend on `device`.
        device: device of the mask; CPU by default.

    Returns:
        (batch, 1, H, W) bool, True = kept.
    """
    if not 0.0 <= mask_ratio <= 1.0:
        raise ValueError(f"mask_ratio must lie in [0, 1], got {mask_ratio}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1 pixel, got {block_size}")
    rows, cols = (max(round(edge / block_size), 1) for edge in size)
    draws = torch.rand(batch, 1, rows, cols, generator=generator)
    return keep_blocks(draws, size, mask_ratio).to(device)


def keep_blocks(draws: Tensor, size: tuple[int, int], mask_ratio: float) -> Tensor:
    """Turn one uniform draw per block into a pixel mask: kept where the draw exceeds `mask_ratio`.

    Args:
        draws: (B, 1, rows, cols) in [0, 1).
        size: (H, W) of the mask; blocks are spread over it by nearest-neighbour resizing.
        mask_ratio: share of blocks removed.

    Returns:
        (B, 1, H, W) bool, True = kept.
    """
    keep = (draws > mask_ratio).float()  # interpolate knows no bool
    return F.interpolate(keep, size=size, mode="nearest").bool()
