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

IDS = 256  # that label maps may hold: a byte's values


def present_ids(labels: Tensor) -> Tensor:
    """Which ids each label map holds, the ignore index among them.

    Args:
        labels: (B, H, W), int64, ids from 0 to 255.

    Returns:
        (B, 256) bool, on the device of `labels`.
    """
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must hold int64 class ids, got dtype {labels.dtype}")
    if labels.numel() == 0:
        raise ValueError(f"labels must hold at least one pixel, got shape {tuple(labels.shape)}")
    present = torch.zeros(len(labels), IDS, dtype=torch.bool, device=labels.device)
    return present.scatter_(1, labels.flatten(1), True)


def draw_halves(generator: torch.Generator, most: int = IDS) -> Tensor:
    """Draw half of the classes, rounded up, without replacement, for every number of classes up to `most`.

    How many classes a batch shows is known on its device alone, and a training process that asked would have to wait
    for the device. So the draw is made for all numbers beforehand, and `halve` looks up there which of them applies.

    Args:
        generator: CPU generator as it was seeded; every number's draw starts from there.
        most: of the ids that label maps may show, the ignore index among them; a draw takes its time for each.

    Returns:
        (most + 1, 256) bool on the CPU: row n marks ceil(n / 2) of its first n entries.
    """
    halves = torch.zeros(most + 1, IDS, dtype=torch.bool)
    for count in range(1, most + 1):
        generator.manual_seed(generator.initial_seed())
        halves[count, torch.randperm(count, generator=generator)[: (count + 1) // 2]] = True
    return halves


def halve(present: Tensor, halves: Tensor) -> Tensor:
    """The drawn half of the ids that are present.

    DACS draws from the classes of one image. DAFormer, HRDA and MIC draw, once per image, from the classes of the
    whole batch. The ignore index counts as a class in both.

    Args:
        present: (B, 256) bool, see `present_ids`, or (1, 256) for all images.
        halves: (B, most + 1, 256) bool, `draw_halves` of each image, on the device of `present`, whose rows hold at
            most `most` ids.

    Returns:
        (B, 256) bool.
    """
    present = present.expand(len(halves), IDS)
    count = present.sum(1).view(-1, 1, 1).expand(-1, 1, IDS)
    half = halves.gather(1, count)[:, 0]  # (B, 256): which of the present, by rank
    rank = (present.cumsum(1) - 1).clamp(min=0)
    return half.gather(1, rank) & present


def class_mask(labels: Tensor, chosen: Tensor) -> Tensor:
    """Where `labels` (B, H, W) hold one of the ids `chosen` (B, 256): the pixels ClassMix pastes. Bool (B, H, W)."""
    return chosen.gather(1, labels.flatten(1)).view_as(labels)


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


def draw_blocks(size: tuple[int, int], block_size: int = 64, generator: torch.Generator | None = None) -> Tensor:
    """Draw one uniform number for each block of an image, for `keep_blocks`.

    Args:
        size: (H, W) of the images in pixels; need not be a multiple of the block.
        block_size: edge of a block in pixels.
        generator: CPU generator; the global CPU RNG by default.

    Returns:
        (1, rows, cols) in [0, 1).
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1 pixel, got {block_size}")
    rows, cols = (max(round(edge / block_size), 1) for edge in size)
    return torch.rand(1, rows, cols, generator=generator)


def keep_blocks(draws: Tensor, size: tuple[int, int], mask_ratio: float) -> Tensor:
    """Turn one uniform draw per block into MIC's pixel mask: kept where the draw exceeds `mask_ratio`.

    `images * keep_blocks(...)` puts the removed pixels to zero, the mean colour of normalised images.

    Args:
        draws: (B, 1, rows, cols) in [0, 1).
        size: (H, W) of the mask; blocks are spread over it by nearest-neighbour resizing.
        mask_ratio: share of blocks removed, in [0, 1].

    Returns:
        (B, 1, H, W) bool, True = kept.
    """
    if not 0.0 <= mask_ratio <= 1.0:
        raise ValueError(f"mask_ratio must lie in [0, 1], got {mask_ratio}")
    keep = (draws > mask_ratio).float()  # interpolate knows no bool
    return F.interpolate(keep, size=size, mode="nearest").bool()
